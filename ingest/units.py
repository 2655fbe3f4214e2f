"""Run a function over units, a bounded number at a time, here or on a cluster.

One future is one unit; no pixel and no graph passes through the driver. A unit that fails does not stop the others:
what they finish is kept, and the failures are told at the end. A unit whose workers die is given to others.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from ingest.cluster import Cluster, Lost, opened
from ingest.memory import machine_bytes, worker_bytes
from ingest.plan import Unit
from pipeline.errors import PretrainError, ReadError, SourceError, UnitsFailed, redact

T = TypeVar("T")
Work = Callable[[Unit], T]
WINDOW = 2
"""Units in flight for each worker: the next one is there when one ends, and few are lost with a worker."""
LIVES = 3
"""How often a unit is given to the cluster when workers die with it, at last alone; each time dask tries three."""
TOLD = 20
"""Failures that are told one by one."""


def run(  # noqa: PLR0913  each is one thing to know
    units: Sequence[Unit],
    work: Work[T],
    *,
    workers: int,
    scheduler: str | None,
    task_bytes: int,
    in_process: bool,
    on_done: Callable[[T], None],
    on_failed: Callable[[str, Exception], None] = lambda _unit_id, _error: None,
) -> None:
    """Do `work` for every unit.

    Args:
        units: what to do.
        work: picklable where it runs in other processes.
        workers: processes of a local cluster; 0 works in this process without dask.
        scheduler: address of a running dask scheduler, in place of a local cluster.
        task_bytes: memory that one unit takes.
        in_process: keep workers as threads of this process, because the output lives in its memory.
        on_done: told each result, in order of completion.
        on_failed: told the id of each unit that failed, and why.

    Raises:
        UnitsFailed: the outside world failed some units; the others are done.
        PretrainError: a unit can never be done, or the cluster is gone; the others are done.
        Exception: a unit met a bug; the others are done.
    """
    if not units:
        return
    failures: dict[str, Exception] = {}
    if workers == 0 and scheduler is None:
        worker_bytes(task_bytes, workers=1, machine_bytes=machine_bytes())
        outcomes = _here(units, work)
    else:
        where = opened(workers, scheduler, task_bytes=task_bytes, in_process=in_process)
        outcomes = _on_dask(units, work, where)
    for unit, outcome in outcomes:
        if isinstance(outcome, Exception):
            failures[unit.unit_id] = outcome
            on_failed(unit.unit_id, outcome)
        else:
            on_done(outcome)
    _tell(failures, len(units))


def _attempt(work: Work[T], unit: Unit) -> T | PretrainError:
    """The result, or our own error as a value without its causes: those of C libraries do not survive pickling."""
    try:
        return work(unit)
    except PretrainError as error:
        error.__cause__ = error.__context__ = None
        return error


def _here(units: Sequence[Unit], work: Work[T]) -> Iterator[tuple[Unit, T | Exception]]:
    return ((unit, _attempt(work, unit)) for unit in units)


def _on_dask(
    units: Sequence[Unit], work: Work[T], where: AbstractContextManager[Cluster]
) -> Iterator[tuple[Unit, T | Exception]]:
    with where as cluster:
        try:
            yield from _in_window(units, work, cluster)
        except SourceError as error:
            raise SourceError(f"{error}; run the same command again: finished units are kept.") from None


def _in_window(units: Sequence[Unit], work: Work[T], cluster: Cluster) -> Iterator[tuple[Unit, T | Exception]]:
    waiting, suspects = deque(units), deque[Unit]()
    running, deaths = dict[str, Unit](), Counter[str]()
    while waiting or running or suspects:
        while waiting and len(running) < WINDOW * cluster.size:
            unit = waiting.popleft()
            running[_submit(cluster, work, unit).key] = unit
        if not running:  # alone, so that it is not convicted for what others did to its workers
            unit = suspects.popleft()
            running[_submit(cluster, work, unit).key] = unit
        for future in cluster.finished():
            unit, outcome = running.pop(future.key), cluster.outcome(future)
            if not isinstance(outcome, Lost):
                yield unit, outcome
                continue
            deaths[unit.unit_id] += 1
            if deaths[unit.unit_id] < LIVES:
                (waiting if deaths[unit.unit_id] < LIVES - 1 else suspects).append(unit)
            else:
                yield unit, _died(outcome)


def _submit(cluster: Cluster, work: Work[T], unit: Unit) -> Any:
    return cluster.submit(_attempt, work, unit)


def _died(lost: Lost) -> SourceError:
    return SourceError(
        f"its workers died {LIVES} times over ({str(lost).splitlines()[0]}). If it was for want of memory, "
        "lower --workers or give the cluster's workers more"
    )


def _tell(failures: dict[str, Exception], total: int) -> None:
    """Raise what the failures amount to, if there are any."""
    for failure in failures.values():
        if not isinstance(failure, PretrainError | OSError):
            raise failure  # a bug: told with its traceback, and not as a unit's bad luck
    for failure in failures.values():
        if isinstance(failure, PretrainError) and not isinstance(failure, SourceError):
            raise failure  # another run would end in the same way
    if failures:
        lines = [f"  {name}  {_words(failures[name])}" for name in sorted(failures)]
        more = [f"  and {len(lines) - TOLD} more"] if len(lines) > TOLD else []
        text = "\n".join([f"{len(lines)} of {total} units failed; the others are kept:", *lines[:TOLD], *more])
        raise UnitsFailed(f"{text}\nRun the same command again to go on with them.", unit_ids=tuple(sorted(failures)))


def _words(failure: Exception) -> str:
    if isinstance(failure, ReadError):
        return f"{failure.band} of {failure.scene_id}: {failure.why} ({failure.href})"
    return redact(str(failure))
