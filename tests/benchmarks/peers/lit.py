"""LitData: its own chunks, of the same encoded bytes."""

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litdata

sys.path.insert(0, str(Path(__file__).parent))

from meter import Asked, Batch, Sample, Tars, collate, serve


class Chunks(litdata.StreamingDataset):
    """Decodes as it reads."""

    def __init__(self, asked: Asked):
        drop = {"drop_last": False} if asked.variant == "drop_last=False" else {}
        super().__init__(asked.native("lit"), shuffle=True, seed=7, **drop)
        self._tars = Tars(asked)

    def __getitem__(self, index: Any) -> Sample:
        found = super().__getitem__(index)
        return self._tars.decoded(int(found["id"]), found["s2"], found["s1"])


class Lit:
    """StreamingDataLoader."""

    def __init__(self, asked: Asked):
        workers = {"num_workers": asked.workers, "persistent_workers": asked.workers > 0}
        self._loader = litdata.StreamingDataLoader(
            Chunks(asked), batch_size=asked.batch, collate_fn=collate, drop_last=None, **workers
        )

    def epoch(self) -> Iterator[Batch]:
        return iter(self._loader)

    def state(self) -> dict[str, Any]:
        return self._loader.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        self._loader.load_state_dict(state)


def encoded(sample: int, *, tars: Tars) -> dict[str, Any]:
    s2, s1 = tars.parts(sample)
    return {"id": sample, "s2": s2, "s1": s1}


def write(asked: Asked) -> None:
    """The same samples."""
    tars = Tars(asked)
    size = {"chunk_size": asked.chunk} if asked.chunk else {"chunk_bytes": "64MB"}
    work = functools.partial(encoded, tars=tars)
    litdata.optimize(work, list(range(len(tars))), asked.native("lit"), num_workers=1, start_method="fork", **size)


if __name__ == "__main__":
    serve(Lit, write=write)
