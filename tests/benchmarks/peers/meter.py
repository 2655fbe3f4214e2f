"""What a reader of shards is asked and told: one process reads epochs, and says what they cost or which samples came.

    python PEER.py '[{"job": "speed", "data": FOLDER, "codec": "b2", ...}]'

Each peer is a script of its own in an environment of its own, so nothing here needs the project: numpy, torch and
blosc2 alone. A peer gives `serve` a function from `Asked` to a `Reader`; a batch is ids (B,), s2 (B, 12, H, W) uint16
and s1 (B, 2, H, W) float32, as stored.
"""

import gc
import io
import json
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import blosc2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

sys.path.insert(0, str(Path(__file__).parent))

from fetch import MARK

Batch = tuple[Tensor, Tensor, Tensor]
Sample = tuple[int, Tensor, Tensor]
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
MEMORY = {"private": ("Private_Clean:", "Private_Dirty:"), "all": ("Pss_Anon:", "Pss_Shmem:")}
"""Lines of the kernel's `smaps_rollup`: what a process shares with no other; and all but files, shared pages once."""
HEADER = 128
"""Bytes before the pixels of a `.npy` file of version 1."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One job."""

    job: str
    """`speed`, `exact` or one of the peer's own: `write` (into its own format)."""
    data: str
    """Folder that holds tars and `places.npz`."""
    codec: str = "b2"
    """Of the members."""
    workers: int = 2
    """Threads or processes."""
    batch: int = 64
    """Samples of one rank."""
    epochs: int = 3
    """To measure; one more warms up."""
    ranks: list[int] = field(default_factory=lambda: [0])
    """Played one after the other in this process."""
    world: int = 1
    """Ranks of the run."""
    rank: int = 0
    """The one that is played now."""
    stop: int | None = None
    """Stop after so many batches and save the state."""
    resume: bool = False
    """Go on from what was saved."""
    chunk: int | None = None
    """Samples of a shard of the peer's own format; None: 64 MB."""
    variant: str = ""
    """Which way of reading, where a peer has several."""

    def native(self, name: str) -> str:
        """Folder of the samples in a peer's own format."""
        return str(Path(self.data) / name)

    def saved(self, rank: int) -> Path:
        """Where a rank's state lies."""
        return Path(self.data) / f"state-{rank}.pickle"


class Reader(Protocol):
    """An open data set."""

    def epoch(self) -> Iterable[Batch]:
        """The batches of one epoch, or what is left of it."""


class Tars:
    """The samples of indexed tars: one `pread` each."""

    def __init__(self, asked: Asked):
        places = np.load(Path(asked.data) / "places.npz")
        self.urls = [str(Path(asked.data) / name) for name in places["shards"]]
        self.shard, self.offset, self.size, self.sums = (places[name] for name in ("shard", "offset", "size", "sums"))
        self.side, self.codec = int(places["side"]), asked.codec
        self._asked, self._files = asked, [os.open(url, os.O_RDONLY) for url in self.urls]

    def __reduce__(self) -> tuple[type, tuple[Asked]]:
        return Tars, (self._asked,)  # a process that is started anew has files of its own

    def __len__(self) -> int:
        return len(self.shard)

    def parts(self, sample: int) -> tuple[bytes, bytes]:
        """The bytes of s2 and s1, which lie side by side."""
        (s2, s1), (s2_size, s1_size) = self.offset[sample].tolist(), self.size[sample].tolist()
        data = os.pread(self._files[self.shard[sample]], s1 + s1_size - s2, s2)
        return data[:s2_size], data[s1 - s2 :]

    def __getitem__(self, sample: int) -> Sample:
        return self.decoded(sample, *self.parts(sample))

    def decoded(self, sample: int, s2: bytes, s1: bytes) -> Sample:
        """A sample as tensors."""
        return sample, self.array(s2, torch.uint16, 12), self.array(s1, torch.float32, 2)

    def array(self, data: bytes, dtype: torch.dtype, bands: int) -> Tensor:
        """One member."""
        if self.codec == "npy":
            return torch.from_numpy(np.load(io.BytesIO(data)))
        out = torch.empty(bands, self.side, self.side, dtype=dtype)
        blosc2.decompress2(data, dst=out.numpy(), nthreads=1)
        return out

    def check(self, batch: Batch) -> None:
        """Refuse pixels that are not the samples' own."""
        assert batch[2].dtype == torch.float32
        for sample, s2, s1 in zip(*batch, strict=True):
            found = int(s2.to(torch.int64).sum()) + int(s1.view(torch.int32).sum())
            assert found == self.sums[int(sample) % len(self)], f"sample {sample} is not what was written"


def collate(samples: list[Sample]) -> Batch:
    """A batch as torch makes it; in shared memory if this is a worker of a DataLoader."""
    ids, s2, s1 = default_collate(samples)
    return ids, s2, s1


def serve(opened: Callable[[Asked], Reader], **more: Callable[[Asked], Any]) -> None:
    """Do the jobs of the command line; one line of JSON for each. `more` are jobs of the peer's own, by name."""
    jobs = {"speed": lambda asked: speed(opened(asked), asked), "exact": lambda asked: exact(opened, asked), **more}
    for line in json.loads(sys.argv[1]):
        asked = Asked(**line)
        found = jobs[asked.job](asked)
        print(f"\n{MARK}{json.dumps(found)}", flush=True)


def speed(reader: Reader, asked: Asked) -> dict[str, Any]:
    """Seconds of processor and clock for each sample, epoch by epoch, and the most memory."""
    warm_up(reader, Tars(asked))
    times = [one_epoch(reader) for _ in range(asked.epochs)]
    with Peak() as peak:
        drain(reader)
    return {"cpu_s": [cpu for cpu, _ in times], "wall_s": [wall for _, wall in times], **peak.bytes}


def warm_up(reader: Reader, tars: Tars) -> None:
    """An epoch, whose first batch is looked at if it has the stored values."""
    for number, batch in enumerate(reader.epoch()):
        if number == 0 and batch[1].dtype == torch.uint16:
            tars.check(batch)


def one_epoch(reader: Reader) -> tuple[float, float]:
    """Seconds of processor and clock for each sample."""
    cpu, wall = tree_cpu_s(), time.perf_counter()
    samples = drain(reader)
    return (tree_cpu_s() - cpu) / samples, (time.perf_counter() - wall) / samples


def drain(reader: Reader) -> int:
    """Read an epoch."""
    return sum(len(ids) for ids, *_ in reader.epoch())


def exact(opened: Callable[[Asked], Reader], asked: Asked) -> dict[int, list[list[int]]]:
    """The sample ids of each batch of each rank."""
    found = {}
    for rank in asked.ranks:
        os.environ.update(RANK=str(rank), GLOBAL_RANK=str(rank), WORLD_SIZE=str(asked.world), LOCAL_RANK=str(rank))
        os.environ["LOCAL_WORLD_SIZE"] = str(asked.world)
        found[rank] = played(opened(Asked(**{**vars(asked), "rank": rank})), asked, rank)
        gc.collect()
    return found


def played(reader: Any, asked: Asked, rank: int) -> list[list[int]]:
    """One rank's ids; what it needs to go on is saved."""
    if asked.resume:
        per_rank = asked.saved(rank) if getattr(reader, "state_is_per_rank", False) else asked.saved(0)
        reader.restore(pickle.loads(per_rank.read_bytes()))
    batches = []
    for ids, *_ in reader.epoch():
        batches.append(ids.tolist())
        if len(batches) == asked.stop:
            asked.saved(rank).write_bytes(pickle.dumps(reader.state()))
            break
    return batches


class Peak:
    """The most memory of this process and those below it, looked at every 20 ms."""

    def __enter__(self) -> "Peak":
        self.bytes, self._done = dict.fromkeys(MEMORY, 0), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        ended = False
        while not ended:
            ended = self._done.wait(0.02)
            lines = [line for process in tree() for line in _read(f"/proc/{process}/smaps_rollup").splitlines()]
            self.bytes = {kind: max(most, memory_bytes(lines, kind)) for kind, most in self.bytes.items()}


def memory_bytes(lines: list[str], kind: str) -> int:
    """One kind of memory over all processes."""
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(MEMORY[kind]))


def tree_cpu_s() -> float:
    """Seconds, user and system, of this process, of those below it, and of those that have ended."""
    own = os.times()
    below = sum(map(_cpu_s, set(tree()) - {os.getpid()}))
    return time.process_time() + own.children_user + own.children_system + below


def _cpu_s(process: int) -> float:
    """Own and reaped children's."""
    fields = _read(f"/proc/{process}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * TICK_S


def tree() -> Iterator[int]:
    """This process and all below it."""
    todo = [os.getpid()]
    while todo:
        process = todo.pop()
        yield process
        for path in Path(f"/proc/{process}/task").glob("*/children"):
            todo += map(int, _read(str(path)).split())


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, ValueError):  # it has ended
        return ""
