"""torchdata's StatefulDataLoader, over the same tars with our index."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

sys.path.insert(0, str(Path(__file__).parent))

from meter import Asked, Batch, Tars, collate, serve


class Sdl:
    """A map-style data set under the sampler that torchdata has for ranks."""

    state_is_per_rank = True

    def __init__(self, asked: Asked):
        tars, self._epoch = Tars(asked), 0
        self._sampler = StatefulDistributedSampler(tars, num_replicas=asked.world, rank=asked.rank, seed=7)
        workers = {"num_workers": asked.workers, "persistent_workers": asked.workers > 0}
        self._loader = StatefulDataLoader(
            tars, batch_size=asked.batch, sampler=self._sampler, collate_fn=collate, **workers
        )

    def epoch(self) -> Iterator[Batch]:
        self._sampler.set_epoch(self._epoch)
        self._epoch += 1
        return iter(self._loader)

    def state(self) -> dict[str, Any]:
        return self._loader.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        self._loader.load_state_dict(state)


if __name__ == "__main__":
    serve(Sdl)
