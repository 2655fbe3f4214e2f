"""webdataset, over the same tars."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import webdataset

sys.path.insert(0, str(Path(__file__).parent))

from meter import Asked, Batch, Sample, Tars, collate, serve


class Wds:
    """As its documentation says: shards dealt to ranks and workers, a buffer of encoded samples that is shuffled."""

    def __init__(self, asked: Asked):
        self._tars = Tars(asked)
        data = webdataset.WebDataset(
            self._tars.urls, shardshuffle=100, nodesplitter=webdataset.split_by_node, empty_check=False, seed=7
        )
        data = data.shuffle(200).map(self._decoded).batched(asked.batch, collation_fn=collate, partial=True)
        workers = {"num_workers": asked.workers, "persistent_workers": asked.workers > 0}
        self._loader = webdataset.WebLoader(data, batch_size=None, **workers)

    def epoch(self) -> Iterable[Batch]:
        return self._loader

    def _decoded(self, sample: dict[str, Any]) -> Sample:
        parts = (sample[f"{name}.{self._tars.codec}"] for name in ("s2", "s1"))
        return self._tars.decoded(int(sample["__key__"]), *parts)


if __name__ == "__main__":
    serve(Wds)
