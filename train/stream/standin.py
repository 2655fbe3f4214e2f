"""What is learned from in the place of a sample whose bytes are damaged in the store.

Another sample of the split is drawn, as everything is, from (seed, epoch, sample): the same at every world size and
after a resume. Why not the next sample of the shard: behind a cut, all of them would be the same one.
"""

from collections.abc import Iterator
from contextlib import suppress

import torch

from pipeline.errors import CorruptShard
from train.stream.noise import hash64
from train.stream.samples import Chips, Samples

_TRIES = 16
"""Where one sample in a hundred is damaged, so many draws are never all of them."""


def read(samples: Samples, sample_id: int, *, seed: int, epoch: int) -> tuple[int, Chips]:
    """A sample, or the first undamaged one that is drawn in its place, and its id.

    Raises:
        CorruptShard: everything that was drawn is damaged, too; names the sample itself.
        SourceError: the store kept failing, which is no damage.
    """
    try:
        return sample_id, samples.read(sample_id)
    except CorruptShard:
        for other in _drawn(seed, epoch, sample_id, samples.samples):
            with suppress(CorruptShard):
                return other, samples.read(other)
        raise


def _drawn(seed: int, epoch: int, sample_id: int, samples: int) -> Iterator[int]:
    place = torch.tensor([epoch]), torch.tensor([sample_id])
    for number in range(_TRIES):
        yield int(hash64(seed, *place, purpose=f"stand-in {number}")) % samples
