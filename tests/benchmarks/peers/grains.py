"""grain, over the same tars with our index: whole batches made by threads, or (`processes`) by worker processes.

Processes are for the order alone: grain starts them anew for each epoch, and each imports torch again.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grain

sys.path.insert(0, str(Path(__file__).parent))

from meter import Asked, Batch, Tars, collate, serve


class Grain:
    """A global shuffle, each rank its slice, batches of whatever is left at the end."""

    state_is_per_rank = True

    def __init__(self, asked: Asked):
        self._asked, self._epoch, self._state = asked, 0, None
        self._tars = Tars(asked)
        self._iterator: Any = None

    def epoch(self) -> Iterator[Batch]:
        self._iterator = iter(self._data(self._epoch))
        if self._state:
            self._iterator.set_state(self._state)
        self._epoch += 1
        return self._iterator

    def state(self) -> Any:
        return self._iterator.get_state()

    def restore(self, state: Any) -> None:
        self._state = state

    def _data(self, epoch: int) -> Any:
        asked = self._asked
        ids = grain.MapDataset.source(self._tars).seed(7 + epoch).shuffle()[asked.rank :: asked.world]
        processes = asked.variant == "processes"
        data = ids.batch(asked.batch, batch_fn=collate)
        threads = grain.ReadOptions(num_threads=0 if processes else asked.workers, prefetch_buffer_size=2)
        data = data.to_iter_dataset(threads)
        if processes and asked.workers:
            data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=asked.workers))
        return data


if __name__ == "__main__":
    from absl import app

    arguments = sys.argv
    app.run(lambda _: serve(Grain), argv=arguments[:1])
