"""Readers in processes of their own, for a device that is faster than the readers of one interpreter.

They fill the same slots, which lie in memory that all share; what travels through the pipes is which rows go where, and
what went wrong. Each process has threads of its own and asks its own source, so that a cache is shared as between
ranks. They are started afresh (spawn), because a fork copies locks that an S3 client holds; they do not heed the
signals that end a run, and end when this process is gone.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.connection import Connection
from threading import Lock, Thread
from typing import Any

import torch

from pipeline.errors import PretrainError, StreamError
from train.stream import heap
from train.stream.cache import CachedShards
from train.stream.config import Share, StreamConfig
from train.stream.memory import mapped, new_memory
from train.stream.readers import pieces
from train.stream.ring import Room, Slot, rooms_of, slot_in
from train.stream.rows import Filler, Row
from train.stream.samples import Samples

_PATIENCE_S = 10.0
"""How long a process may take to end."""


class Processes:
    """Readers elsewhere."""

    def __init__(self, filler: Filler, config: StreamConfig, share: Share) -> None:
        """Start them; no byte is read yet."""
        self._samples, self._config, self._share = filler.samples, config, share
        self._numbers = itertools.count()
        self._workers = [_Worker(filler, share.threads) for _ in range(share.processes)]

    def slot(self, rows: int) -> Slot:
        """As the protocol says; page-locked for a GPU where its driver allows it."""
        rooms = rooms_of(self._samples, self._config, rows=rows)
        memory = new_memory(rooms, pinned=torch.device(self._share.device).type == "cuda")
        for worker in self._workers:
            worker.share(memory.fd, rooms)
        os.close(memory.fd)
        return slot_in(memory.tensors, number=next(self._numbers))

    def fill(self, slot: Slot, rows: Sequence[Row]) -> list[Future[None]]:
        """As the protocol says; pieces go to the processes in turn."""
        parts = pieces(rows, self._share.threads * len(self._workers))
        return [
            worker.fill(slot.number, part) for worker, part in zip(itertools.cycle(self._workers), parts, strict=False)
        ]

    def want(self, shards: Iterable[str]) -> None:
        """As the protocol says: any process may read from any shard."""
        names = list(shards)
        for worker in self._workers:
            worker.send("want", names)

    def close(self) -> None:
        """As the protocol says."""
        for worker in self._workers:
            worker.send("end")
        for worker in self._workers:
            worker.join()


class _Worker:
    """One of them, seen from here."""

    def __init__(self, filler: Filler, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._samples, self._tickets = filler.samples, itertools.count()
        self._waiting: dict[int, Future[None]] = {}
        self._gone: StreamError | None = None
        self._lock = Lock()
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, filler, threads), daemon=True, name="reader")
        self._process.start()
        there.close()
        self._listener = Thread(target=self._listen, daemon=True, name="reader")
        self._listener.start()

    def send(self, *message: Any) -> None:
        """One more thing to do; one that is gone does nothing."""
        with self._lock, contextlib.suppress(OSError):
            self._pipe.send(message)

    def share(self, fd: int, rooms: Mapping[str, Room]) -> None:
        """Hand over the memory of one more slot."""
        with self._lock, contextlib.suppress(OSError):
            self._pipe.send(("share", dict(rooms)))
            reduction.send_handle(self._pipe, fd, self._process.pid)

    def fill(self, slot: int, rows: Sequence[Row]) -> Future[None]:
        """Begin to read rows into a slot."""
        part: Future[None] = Future()
        with self._lock:
            ticket = next(self._tickets)
            self._waiting[ticket] = part
            with contextlib.suppress(OSError):
                self._pipe.send(("fill", ticket, slot, rows))
            if self._gone is not None:
                part.set_exception(self._gone)
        return part

    def join(self) -> None:
        """Wait until it has ended, or end it."""
        self._process.join(_PATIENCE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._listener.join()
        self._pipe.close()

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._heard(*self._pipe.recv())
        self._process.join()
        error = StreamError(
            f"a process that reads has ended by itself (exit code {self._process.exitcode}; -9 is often a lack of "
            "memory). Start again with --resume, and with fewer --reader-processes or a smaller --batch."
        )
        with self._lock:
            self._gone = error
            for part in self._waiting.values():
                if not part.done():
                    part.set_exception(error)

    def _heard(self, kind: str, *what: Any) -> None:
        if kind == "say":
            _say_of(self._samples)(*what)
            return
        ticket, error, counts = what
        _add(self._samples, counts)
        with self._lock:
            part = self._waiting.pop(ticket)
        part.set_result(None) if error is None else part.set_exception(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """What a process has read so far."""

    bytes_read: int
    requests: int
    retries: int
    hits: int
    misses: int

    def since(self, before: "_Counts") -> "_Counts":
        return _Counts(**{name: getattr(self, name) - getattr(before, name) for name in self.__dataclass_fields__})


def _counts(samples: Samples) -> _Counts:
    traffic, source = samples.store.traffic, samples.source
    hits, misses = (source.counts.hits, source.counts.misses) if isinstance(source, CachedShards) else (0, 0)
    return _Counts(
        bytes_read=traffic.bytes_read, requests=traffic.requests, retries=traffic.retries, hits=hits, misses=misses
    )


def _add(samples: Samples, counts: _Counts) -> None:
    samples.store.traffic.add(bytes_read=counts.bytes_read, requests=counts.requests, retries=counts.retries)
    if isinstance(samples.source, CachedShards):
        samples.source.counts.hits += counts.hits
        samples.source.counts.misses += counts.misses


def _say_of(samples: Samples) -> Any:
    return samples.source.say if isinstance(samples.source, CachedShards) else lambda _: None


def _serve(pipe: Connection, filler: Filler, threads: int) -> None:
    """What a process does until it is told to end, or nobody is left to tell it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    heap.keep_freed_memory()
    torch.set_num_threads(1)
    _Server(pipe, filler, threads).run()


class _Server:
    """One of them, seen from itself."""

    def __init__(self, pipe: Connection, filler: Filler, threads: int) -> None:
        self._pipe, self._filler = pipe, filler
        self._slots: list[Slot] = []
        self._told = _counts(filler.samples)
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="samples")
        if isinstance(filler.samples.source, CachedShards):
            filler.samples.source.say = lambda text: self._tell("say", text)

    def run(self) -> None:
        try:
            while self._do(*self._pipe.recv()):
                pass
        except (EOFError, OSError):
            os._exit(1)  # nobody is left; threads that still read are not waited for
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._filler.samples.source.close()

    def _do(self, kind: str, *what: Any) -> bool:
        """One thing; false at the end."""
        if kind == "fill":
            self._pool.submit(self._fill, *what)
        elif kind == "want":
            self._filler.samples.source.want(*what)
        elif kind == "share":
            fd = reduction.recv_handle(self._pipe)
            self._slots.append(slot_in(mapped(fd, *what)))
            os.close(fd)
        return kind != "end"

    def _fill(self, ticket: int, slot: int, rows: Sequence[Row]) -> None:
        error: Exception | None = None
        try:
            self._filler.fill(self._slots[slot], rows)
        except PretrainError as caught:
            error = caught
        except Exception as caught:  # noqa: BLE001 - whatever it is, the run must hear of it
            error = StreamError(f"a process that reads failed: {caught!r}.")
        with self._lock:
            now = _counts(self._filler.samples)
            counts, self._told = now.since(self._told), now
        self._tell("done", ticket, error, counts)

    def _tell(self, *message: Any) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._pipe.send(message)
