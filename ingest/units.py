"""The only user of dask: run a function over units, a bounded number at a time.

One future is one unit; no pixel and no graph passes through the driver. A unit that fails does not stop the others:
what they finish is kept, and the failures are told at the end.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from ingest.plan import Unit
from pipeline.errors import PretrainError, SourceError, UsageError, redact

T = TypeVar("T")
Work = Callable[[Unit], T]
WINDOW = 4
"""Units in flight for each worker: enough to keep it busy, few enough to hold nothing back."""


_DASK = {"dask", "distributed"}
"""Whose errors are lost workers and the like."""


def run(
    units: Sequence[Unit],
    work: Work[T],
    *,
    workers: int,
    scheduler: str | None,
    in_process: bool,
    on_done: Callable[[T], None],
) -> None:
    """Do `work` for every unit.

    Args:
        units: what to do.
        work: picklable where it runs in other processes.
        workers: processes of a local cluster; 0 works in this process without dask.
        scheduler: address of a running dask scheduler, in place of a local cluster.
        in_process: keep workers as threads of this process, because the output lives in its memory.
        on_done: told each result, in order of completion.

    Raises:
        PretrainError: one or more units failed; the others are done.
        Exception: a unit met a bug; the others are done.
    """
    failures: list[Exception] = []
    if not units:
        return
    if workers == 0 and scheduler is None:
        outcomes = _here(units, work)
    else:
        outcomes = _on_dask(units, work, workers=workers, scheduler=scheduler, in_process=in_process)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            failures.append(outcome)
        else:
            on_done(outcome)
    for failure in failures:
        if not isinstance(failure, PretrainError | OSError) and type(failure).__module__.partition(".")[0] not in _DASK:
            raise failure  # a bug: told with its traceback, and not as a unit's bad luck
    if failures:
        raise _summary(failures, len(units))


def _attempt(work: Work[T], unit: Unit) -> T | PretrainError:
    """The result, or our own error as a value without its causes: those of C libraries do not survive pickling."""
    try:
        return work(unit)
    except PretrainError as error:
        error.__cause__ = error.__context__ = None
        return error


def _here(units: Sequence[Unit], work: Work[T]) -> Iterator[T | Exception]:
    return (_attempt(work, unit) for unit in units)


def _on_dask(
    units: Sequence[Unit], work: Work[T], *, workers: int, scheduler: str | None, in_process: bool
) -> Iterator[T | Exception]:
    from distributed import as_completed

    with _client(workers, scheduler, in_process) as client:
        window = WINDOW * max(1, workers, len(client.scheduler_info(n_workers=-1)["workers"]))
        waiting = iter(units)
        running = as_completed([_submit(client, work, unit) for unit in islice(waiting, window)], loop=client.loop)
        for future in running:
            error = future.exception()
            yield error if error is not None else future.result()
            for unit in islice(waiting, 1):
                running.add(_submit(client, work, unit))


def _submit(client: Any, work: Work[T], unit: Unit) -> Any:
    return client.submit(_attempt, work, unit, pure=False)


@contextmanager
def _client(workers: int, scheduler: str | None, in_process: bool) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, set_as_default=False)
            client.wait_for_workers(1, timeout=60)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"no worker answers at --scheduler {redact(scheduler)}: {redact(str(error))}. "
                "Start it, or use --workers."
            ) from error
        with client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=max(1, workers),
            threads_per_worker=1,
            processes=not in_process,
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _summary(failures: Sequence[Exception], total: int) -> Exception:
    """The first failure, with how many there were; an error of ours stays of its kind."""
    first = failures[0]
    if len(failures) == 1 and isinstance(first, PretrainError):
        return first
    text = f"{len(failures)} of {total} units failed; the others are kept. The first: {redact(str(first))}"
    return (type(first) if type(first) is SourceError else SourceError)(text)
