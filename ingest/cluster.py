"""The only user of dask: where units run. Workers may be killed, added and removed at any time.

A future that is lost, because its workers died or the scheduler forgot it, is told as `Lost` and not as a failure: who
asked for it decides whether to ask again.
"""

import logging
import queue
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ingest import memory
from pipeline.errors import SourceError, UsageError, redact

POLL_S = 1.0
"""Seconds between two looks at the workers while no unit ends."""
LONELY_S = 600.0
"""Seconds without any worker before the run ends."""
REPLACE_S = 30.0
"""Seconds that a local worker may be missing before another is started: dask loses those that die at their start."""
STARTS = 3
"""Tries to start local workers."""
GATHER_S = 60.0
"""Seconds for the result of a finished unit, a few hundred bytes, to arrive."""
_GONE = "the dask scheduler is gone. Start it again, or use --workers"
_OURS = {"dask", "distributed"}
_SILENT = logging.CRITICAL
_CONFIG = {
    "distributed.scheduler.allowed-failures": 2,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}
"""Results are small, so that there is nothing to spill, and a paused worker would wait for ever."""


def check_address(scheduler: str) -> None:
    """Refuse what cannot be a scheduler's address, before anything is done.

    Raises:
        UsageError: it is not `tcp://HOST:PORT` or the like.
    """
    if not re.fullmatch(r"((tcp|tls|ucx|ws|wss)://)?[^\s/]+:\d{1,5}", scheduler):
        raise UsageError(f"--scheduler {redact(scheduler)}: write tcp://HOST:PORT, as the scheduler prints it.")


class Lost(Exception):
    """The workers that had a unit died, or nobody knows of it any more."""


class Cluster:
    """Workers of dask, wherever they are."""

    def __init__(self, client: Any, *, local: Any, wanted: int) -> None:
        """`local` is the cluster to keep at `wanted` workers, where it is this process's own."""
        self._client, self._local, self._wanted = client, local, wanted
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._size, self._full_s, self._some_s = wanted, time.monotonic(), time.monotonic()

    @property
    def size(self) -> int:
        """Workers, when last looked at; at least 1."""
        return max(1, self._size)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Begin a piece of work; its future comes back from `finished`.

        Raises:
            SourceError: the scheduler is gone.
        """
        from distributed.client import ClosedClientError

        try:
            future = self._client.submit(work, *arguments, pure=False)
        except ClosedClientError:
            raise SourceError(_GONE) from None
        future.add_done_callback(self._done.put)
        return future

    def finished(self) -> list[Any]:
        """Futures that ended, those of up to a second's wait.

        Raises:
            SourceError: the scheduler is gone, or there was no worker for long.
        """
        ended = []
        try:
            ended.append(self._done.get(timeout=POLL_S))
            while True:
                ended.append(self._done.get_nowait())
        except queue.Empty:
            pass
        self._look()
        return ended

    def outcome(self, future: Any) -> Any:
        """What a future that ended holds: a value, or an exception as a value; `Lost` where it must be asked again."""
        try:
            if future.status == "error":
                error = future.exception(timeout=GATHER_S)
                return Lost(redact(str(error))) if type(error).__module__.partition(".")[0] in _OURS else error
            return future.result(timeout=GATHER_S)
        except Exception as error:  # noqa: BLE001  cancelled, out of time, or the connection broke
            return Lost(f"{type(error).__name__}: {redact(str(error))}")

    def _look(self) -> None:
        now = time.monotonic()
        if self._client.status not in {"running", "connecting"}:
            raise SourceError(_GONE)
        self._size = len(self._workers())
        if self._size:
            self._some_s = now
        if self._size >= self._wanted:
            self._full_s = now
        if self._local is not None and now - self._full_s > REPLACE_S:
            self._full_s = now
            self._local.scale(len(self._local.worker_spec) + self._wanted - self._size)
        if now - self._some_s > LONELY_S:
            raise SourceError(f"no dask worker for {LONELY_S:.0f} seconds. Start some, or use --workers")

    def _workers(self) -> Any:
        if self._local is not None:
            return self._local.scheduler.workers
        try:
            return self._client.scheduler_info(n_workers=-1)["workers"] if self._client.status == "running" else ()
        except Exception:  # noqa: BLE001  it is going; the client's status tells
            return ()


@contextmanager
def opened(workers: int, scheduler: str | None, *, task_bytes: int, in_process: bool) -> Iterator[Cluster]:
    """A cluster on this machine, or the one whose scheduler is at an address.

    Args:
        workers: processes of a local cluster.
        scheduler: address of a running dask scheduler, in place of a local cluster.
        task_bytes: memory that a task takes.
        in_process: keep workers as threads of this process.

    Raises:
        UsageError: no worker answers, or a task does not fit.
    """
    import dask
    import distributed  # noqa: F401  its defaults must be there before they are changed, or they go with the change

    if scheduler is None:
        limit = memory.worker_bytes(task_bytes, workers=workers, machine_bytes=memory.machine_bytes())
        with dask.config.set(_CONFIG), _local(workers, limit, in_process=in_process) as cluster:
            yield cluster
    else:
        with _remote(scheduler, task_bytes) as cluster:
            yield cluster


@contextmanager
def _local(workers: int, limit: int, *, in_process: bool) -> Iterator[Cluster]:
    from distributed import Client

    with (
        _started(
            n_workers=max(1, workers),
            threads_per_worker=1,
            processes=not in_process,
            memory_limit=0 if in_process else limit,
            dashboard_address="127.0.0.1:0",
            silence_logs=_SILENT,
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        yield Cluster(client, local=None if in_process else local, wanted=max(1, workers))


def _started(**how: Any) -> Any:
    """A local cluster; started anew where a worker was killed in the middle of its start."""
    from distributed import LocalCluster

    for attempt in range(STARTS):
        try:
            return LocalCluster(**how)
        except RuntimeError as error:
            if attempt == STARTS - 1:
                raise SourceError(f"local workers do not start: {redact(str(error))}") from error
    raise AssertionError  # the last try returns or raises


@contextmanager
def _silent() -> Iterator[None]:
    """Within, dask and its event loop print nothing, as those of a local cluster (`silence_logs`).

    What is sent while the connection breaks fails in a callback of the loop, which prints the traceback (distributed
    2026.8), above the one message that says what happened.
    """
    from distributed.utils import silence_logging_cmgr

    with silence_logging_cmgr(_SILENT, "distributed"), silence_logging_cmgr(_SILENT, "tornado.application"):
        yield


@contextmanager
def _remote(scheduler: str, task_bytes: int) -> Iterator[Cluster]:
    from distributed import Client

    try:
        client = Client(scheduler, set_as_default=False)
        client.wait_for_workers(1, timeout=60)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no worker answers at --scheduler {redact(scheduler)}: {redact(str(error))}. Start it, or use --workers."
        ) from error
    with _silent(), client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        memory.check_remote(
            task_bytes, {name: (one["memory_limit"] or 0) // max(1, one["nthreads"]) for name, one in workers.items()}
        )
        yield Cluster(client, local=None, wanted=len(workers))
