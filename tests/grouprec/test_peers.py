"""What two ranks gather is what one would have, also where one of them has a pair less."""

import numpy as np
import pytest
import torch

from train.grouprec import peers
from train.grouprec.peers import Peers

pytestmark = pytest.mark.train


@pytest.mark.parametrize("pairs", [1, 4, 5])
def test_ranks_gather_the_rows_of_the_batch_and_no_others(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    """A row that stands in for nothing would move under Adam, though its gradient is zero."""
    nodes = np.arange(10, 10 + 3 * pairs).reshape(3, pairs)
    gradients = np.random.default_rng(0).standard_normal((3, pairs, 2)).astype(np.float32)
    shares = [Peers(rank=rank, world_size=2).share(pairs) for rank in range(2)]
    rows = [nodes[:, share].reshape(-1) for share in shares]
    by_rows = [gradients[:, share].reshape(-1, 2) for share in shares]

    def gather(parts: list[torch.Tensor], own: torch.Tensor) -> None:
        sent = rows if own.dtype == torch.int64 else by_rows
        for part, other in zip(parts, sent, strict=True):
            assert part.shape == own.shape
            part.zero_()[: len(other)] = torch.from_numpy(other)

    monkeypatch.setattr(peers.dist, "all_gather", gather)
    found = Peers(rank=0, world_size=2).rows(rows[0], by_rows[0], pairs)
    assert found[0].tolist() == np.concatenate(rows).tolist()
    assert np.array_equal(found[1], np.concatenate(by_rows))
