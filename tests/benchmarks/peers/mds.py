"""MosaicML streaming: its own shards, of the same encoded bytes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

# torchvision 0.28 beside a CPU build of torch: the package's import asks for an operator that is not there.
_LIBRARY = torch.library.Library("torchvision", "DEF")
_LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import streaming  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))

from meter import Asked, Batch, Sample, Tars, collate, serve  # noqa: E402

COLUMNS = {"id": "int", "s2": "bytes", "s1": "bytes"}


class Shards(streaming.StreamingDataset):
    """Decodes as it reads."""

    def __init__(self, asked: Asked):
        super().__init__(local=asked.native("mds"), shuffle=True, shuffle_seed=7, batch_size=asked.batch)
        self._tars = Tars(asked)

    def __getitem__(self, index: Any) -> Sample:
        found = super().__getitem__(index)
        return self._tars.decoded(int(found["id"]), found["s2"], found["s1"])


class Mds:
    """StreamingDataLoader."""

    def __init__(self, asked: Asked):
        workers = {"num_workers": asked.workers, "persistent_workers": asked.workers > 0}
        self._loader = streaming.StreamingDataLoader(
            Shards(asked), batch_size=asked.batch, collate_fn=collate, **workers
        )

    def epoch(self) -> Iterator[Batch]:
        return iter(self._loader)

    def state(self) -> dict[str, Any] | None:
        return self._loader.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        self._loader.load_state_dict(state)


def write(asked: Asked) -> None:
    """The same samples."""
    tars = Tars(asked)
    limit = int(tars.size.sum(axis=1).mean() + 64) * asked.chunk if asked.chunk else 64_000_000
    with streaming.MDSWriter(out=asked.native("mds"), columns=COLUMNS, size_limit=limit) as out:
        for sample in range(len(tars)):
            s2, s1 = tars.parts(sample)
            out.write({"id": sample, "s2": s2, "s1": s1})


if __name__ == "__main__":
    serve(Mds, write=write)
