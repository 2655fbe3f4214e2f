"""Workers die, come and go, take too much memory; schedulers vanish: units are done, or the run ends with words."""

import asyncio
import contextlib
import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dask
import harness
import pytest
from distributed import LocalCluster
from faults.chores import Chore, Deadly
from flaky_server import serving
from tiny_earth import Tiny
from typer.testing import CliRunner

from ingest import cluster, memory, units
from ingest.cli import app
from ingest.plan import Unit
from ingest.units import run
from pipeline.errors import SourceError, UnitsFailed, UsageError

pytestmark = [pytest.mark.ingest, pytest.mark.slow]
MANY = tuple(Unit(unit_id=f"u{i:05d}", first_row=0, tasks=()) for i in range(24))
ENVIRONMENT = {**harness.ENVIRONMENT, "PYTHONPATH": os.pathsep.join((str(harness.ROOT), str(harness.ROOT / "tests")))}

QUIET: dict[str, Any] = {"silence_logs": False, "dashboard_address": None}
PRINTING = ("distributed", "tornado.application")
"""Loggers to which distributed gives a handler when it is imported, unless somebody has set up logging."""


def _run(todo: Sequence[Unit], work: Callable[[Unit], Any], **how: Any) -> list[str]:
    done: list[str] = []
    where = {"workers": 2, "scheduler": None, "task_bytes": 1, "in_process": False, **how}
    try:
        run(todo, work, on_done=done.append, **where)
    finally:
        done.sort()
    return done


def _ids(todo: Sequence[Unit]) -> list[str]:
    return [unit.unit_id for unit in todo]


def _kill_workers(folder: Path, count: int) -> None:
    """SIGKILL whoever works, so many times, each time somebody new."""
    killed: set[Path] = set()
    end_s = time.monotonic() + 120
    while len(killed) < count and time.monotonic() < end_s:
        for path in sorted(set(folder.glob("pid-*")) - killed)[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.name[4:]), signal.SIGKILL)
            killed.add(path)
        time.sleep(0.2)


def test_local_workers_that_are_killed_fail_no_unit(tmp_path: Path) -> None:
    killer = threading.Thread(target=_kill_workers, args=(tmp_path, 3), daemon=True)
    killer.start()
    assert _run(MANY, Chore(folder=tmp_path, seconds=0.3)) == _ids(MANY)
    assert len(list(tmp_path.glob("pid-*"))) > 2  # some were killed, and others took over


def test_a_unit_that_kills_its_workers_ends_with_words_and_no_other_unit_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cluster._CONFIG, "distributed.scheduler.allowed-failures", 0)
    done: list[str] = []
    with pytest.raises(UnitsFailed, match=r"1 of 6 units failed.*\n  u00004  its workers died 3 times over") as caught:
        run(
            MANY[:6],
            Deadly(unit_id="u00004"),
            workers=2,
            scheduler=None,
            task_bytes=1,
            in_process=False,
            on_done=done.append,
        )
    assert sorted(done) == [name for name in _ids(MANY[:6]) if name != "u00004"]
    assert "lower --workers" in str(caught.value)


def test_a_unit_that_takes_too_much_memory_is_ended_rather_than_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cluster._CONFIG, "distributed.scheduler.allowed-failures", 0)
    monkeypatch.setattr(units, "LIVES", 1)
    monkeypatch.setattr(memory, "PROCESS_BYTES", 150 * 2**20)
    with pytest.raises(UnitsFailed, match="u00000  its workers died 1 times over"):
        _run(MANY[:1], Deadly(unit_id="u00000", byte_count=2**30), workers=1)


def test_a_local_worker_that_never_came_back_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dask gives a worker up that is killed while it starts."""
    monkeypatch.setattr(cluster, "REPLACE_S", 3.0)  # longer than a start, or each second starts another
    with cluster.opened(1, None, task_bytes=1, in_process=False) as one:
        local = one._local
        local.sync(local.workers[0].kill)
        future = one.submit(Chore(folder=tmp_path), MANY[0])
        end_s = time.monotonic() + 60
        while not (ended := one.finished()):
            assert time.monotonic() < end_s
        assert [item.key for item in ended] == [future.key]
        assert one.outcome(future) == "u00000"


# --- schedulers elsewhere ----------------------------------------------------------------------------------------


class Remote:
    """A scheduler and its workers in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, list[subprocess.Popen[bytes]]()
        self.scheduler = self._start("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard")
        self.address = self._told(r"Scheduler at:\s+(tcp://\S+)")

    def add(self, *flags: str) -> "subprocess.Popen[bytes]":
        """Another worker, without a nanny: who kills it kills it."""
        return self._start("worker", self.address, "--no-nanny", "--nthreads", "1", "--no-dashboard", *flags)

    def _start(self, what: str, *flags: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *flags]
        with (self.folder / f"{what}-{len(self.started)}.log").open("wb") as log:
            process = subprocess.Popen(command, env=ENVIRONMENT, cwd=self.folder, stdout=log, stderr=log)
        self.started.append(process)
        return process

    def _told(self, pattern: str) -> str:
        end_s = time.monotonic() + 60
        while not (found := re.search(pattern, (self.folder / "scheduler-0.log").read_text())):
            assert time.monotonic() < end_s, (self.folder / "scheduler-0.log").read_text()
            time.sleep(0.05)
        return found[1]


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    (tmp_path / "remote").mkdir()
    made = Remote(tmp_path / "remote")
    try:
        yield made
    finally:
        for process in reversed(made.started):
            process.kill()
            process.wait(timeout=30)


def _until(folder: Path, pattern: str, count: int, *, driver: "subprocess.Popen[str] | None" = None) -> None:
    """Wait until so many files are there; no longer than their driver lives."""
    end_s = time.monotonic() + 200
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < end_s, f"{count} {pattern}"
        assert driver is None or driver.poll() is None, driver.communicate()
        time.sleep(0.05)


def test_remote_workers_may_be_killed_and_added(remote: Remote, tmp_path: Path) -> None:
    first = remote.add()
    done: list[list[str]] = []
    chore = Chore(folder=tmp_path, seconds=0.3)
    driver = threading.Thread(target=lambda: done.append(_run(MANY, chore, scheduler=remote.address)), daemon=True)
    driver.start()
    _until(tmp_path, "u*", 3)
    first.kill()
    first.wait(timeout=30)
    remote.add()
    _until(tmp_path, "u*", 8)
    remote.add()
    driver.join(timeout=200)
    assert done == [_ids(MANY)]
    assert len(list(tmp_path.glob("pid-*"))) >= 2


def test_no_worker_for_long_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LONELY_S", 1.0)
    monkeypatch.setattr(cluster, "GATHER_S", 1.0)  # the worker may go with the result of what it has done
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, **QUIET) as local:
        leaving = threading.Thread(target=lambda: (_until(tmp_path, "u*", 1), local.scale(0)), daemon=True)
        leaving.start()
        with pytest.raises(SourceError, match=r"no dask worker for 1 seconds.*run the same command again"):
            _run(MANY, Chore(folder=tmp_path), scheduler=local.scheduler_address)
        leaving.join(timeout=60)


def test_a_worker_that_is_too_small_is_refused() -> None:
    small = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, memory_limit="512MiB", **QUIET)
    with small, pytest.raises(UsageError, match=r"a thread of worker inproc://\S+ has 512 MiB"):
        _run(MANY, Deadly(unit_id=""), scheduler=small.scheduler_address, task_bytes=2**29)


@pytest.fixture
def printed() -> Iterator[io.StringIO]:
    """What dask and tornado print where nobody has set up logging: the command line's process."""
    handler, loggers = logging.StreamHandler(io.StringIO()), [logging.getLogger(name) for name in PRINTING]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler.stream
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.fixture
def elsewhere(printed: io.StringIO) -> Iterator[cluster.Cluster]:
    """Workers at an address, which is in this process."""
    with (
        LocalCluster(n_workers=1, processes=False, **QUIET) as local,
        cluster.opened(0, local.scheduler_address, task_bytes=1, in_process=False) as one,
    ):
        yield one


def test_what_is_sent_while_the_connection_breaks_prints_nothing(
    elsewhere: cluster.Cluster, printed: io.StringIO
) -> None:
    """dask sends in a callback of its event loop: as when a unit is released while its scheduler dies."""
    client, failed = elsewhere._client, list[logging.LogRecord]()
    noted = logging.getLogger("tornado.application")
    noted.addFilter(lambda record: not failed.append(record))

    async def break_while_sending() -> None:
        client._send_to_scheduler({"op": "client-releases-keys", "keys": [], "client": client.id})
        client.scheduler_comm.comm.abort()

    try:
        client.sync(break_while_sending)
        client.sync(asyncio.sleep, 0.01)
    finally:
        noted.removeFilter(noted.filters[-1])
    assert [record.msg for record in failed] == ["Exception in callback %r"], "nothing broke"
    assert "Traceback" not in printed.getvalue()


def test_a_unit_that_meets_a_closed_client_is_the_same_message(elsewhere: cluster.Cluster) -> None:
    """While the result of another unit is waited for, the scheduler goes and the client closes."""
    elsewhere._client.close()
    with pytest.raises(SourceError, match="the dask scheduler is gone"):
        elsewhere.submit(len, "abc")


@pytest.fixture(scope="module")
def weather() -> dict[str, bool]:
    """Whether the server of images is slow."""
    return {"slow": False}


@pytest.fixture(scope="module")
def asked(tiny: Tiny, weather: dict[str, bool]) -> Iterator[list[str]]:
    """A build of three units, from a server."""
    with serving(tiny.root, lambda path, _: "slow" if weather["slow"] and "B0" in path else None) as (url, _):
        yield ["build-shards", "--aoi", tiny.aoi, "--catalog", f"{url}/catalog.json", "--chip-px", "24"]


@pytest.fixture(scope="module")
def calm(asked: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What it makes in peace."""
    out = tmp_path_factory.mktemp("calm") / "out"
    _build_here(asked, out)
    return harness.tree(out)


def _build_here(asked: list[str], out: Path) -> None:
    done = CliRunner().invoke(app, [*asked, "--out", str(out), "--workers", "0"])
    assert done.exit_code == 0, done.output


def test_a_scheduler_that_ends_is_one_message(tmp_path: Path) -> None:
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, **QUIET) as local,
    ):
        ending = threading.Thread(target=lambda: (_until(tmp_path, "u*", 1), local.close()), daemon=True)
        ending.start()
        with pytest.raises(SourceError, match=r"the dask scheduler is gone.*run the same command again"):
            _run(MANY, Chore(folder=tmp_path), scheduler=local.scheduler_address)
        ending.join(timeout=60)


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)], ids=["killed", "ended"]
)
def test_a_scheduler_that_vanishes_is_one_message_and_the_build_goes_on_without_it(  # noqa: PLR0917  fixtures
    how: signal.Signals,
    remote: Remote,
    asked: list[str],
    calm: dict[str, str],
    weather: dict[str, bool],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    remote.add()
    weather["slow"] = True
    driver = subprocess.Popen(
        [sys.executable, "-m", "ingest.cli", *asked, "--out", str(out), "--scheduler", remote.address],
        env={**ENVIRONMENT, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s"},
        cwd=harness.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _until(out, "receipts/*", 1, driver=driver)
        remote.scheduler.send_signal(how)
        printed, said = driver.communicate(timeout=100)
    finally:
        driver.kill()
        weather["slow"] = False
    assert (driver.returncode, printed) == (69, "")
    assert "ingest: the dask scheduler is gone" in said
    assert f"\n  ingest {' '.join(asked[:3])}" in said
    assert "Traceback" not in said
    _build_here(asked, out)
    assert harness.tree(out) == calm
