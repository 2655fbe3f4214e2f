"""Samples whose bytes are damaged in the store and that others stand in for: each is told once, too many end the run.

They stand in the run's folder, one JSON line each, in the order in which they were met.
"""

import json
from collections.abc import Callable, Iterable

from pipeline.errors import CorruptShard
from pipeline.store import Store
from train.stream.samples import Samples

FILE_NAME = "quarantine.jsonl"
_PERCENT = 1


class Quarantine:
    """The same on all ranks; one of them writes it down."""

    def __init__(self, out: Store, samples: Samples, *, writes: bool, say: Callable[[str], None]) -> None:
        """Begin with what `out` knows already.

        Args:
            out: the run's folder.
            samples: of the run.
            writes: true on one rank.
            say: told of each damaged sample.
        """
        self._out, self._samples, self._writes, self._say = out, samples, writes, say
        self._most = max(1, samples.samples * _PERCENT // 100)
        self._lines = {json.loads(line)["sample_id"]: line for line in _written(out)}

    def add(self, sample_ids: Iterable[int]) -> None:
        """These were met; called on all ranks with the same ones.

        Raises:
            CorruptShard: too many are damaged.
            SourceError: they could not be written down.
        """
        new = sorted(set(sample_ids) - set(self._lines))
        for one in new:
            shard, offset = self._samples.place(one)
            known = {"sample_id": one, "key": self._samples.key(one), "shard": shard, "offset": offset}
            self._lines[one] = json.dumps(known)
            self._say(f"damaged, and another sample is learned from in its place: {self._lines[one]}")
        if new and self._writes:
            self._out.publish(FILE_NAME, "".join(f"{line}\n" for line in self._lines.values()).encode())
        if len(self._lines) > self._most:
            raise CorruptShard(
                f"{len(self._lines)} of {self._samples.samples} samples are damaged, and --on-corrupt quarantine bears "
                f"{self._most} ({_PERCENT} %, at least one): they stand in {self._out.url}/{FILE_NAME}. Copy their "
                f"shards into {self._samples.store.url} again, then resume after removing that file."
            )


def _written(out: Store) -> list[str]:
    try:
        return out.read(FILE_NAME).decode().splitlines()
    except FileNotFoundError:
        return []
