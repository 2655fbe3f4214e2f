"""The job files of infra/slurm on a Slurm of two nodes: what they leave is what one machine makes, preempted or not."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import harness
import pytest
from cluster import slurm

pytest.importorskip("rasterio", reason="needs the ingest extra")
pytest.importorskip("torch", reason="needs the train extra")

from tiny_earth import Tiny, tiny  # noqa: F401  a fixture
from tiny_pairs import write_pairs

from pipeline.store import Store
from train import checkpoint
from train.meter import read_rows, steady

pytestmark = [pytest.mark.ingest, pytest.mark.train, pytest.mark.slow]
STEPS = 10
USR1 = 1 << (signal.SIGUSR1 - 1)
"""Its bit in what the kernel says of a process."""
ENVIRONMENT = {**harness.ENVIRONMENT, "VENV": sys.prefix, "PYTHONPATH": str(harness.ROOT)}
"""Of jobs: Slurm passes on what `sbatch` has."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm.Slurm]:
    """A controller and the nodes n1 and n2, idle; each test leaves them so."""
    slurm.require()
    with slurm.running(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def _submit(cluster: slurm.Slurm, name: str, *arguments: str, sbatch: tuple[str, ...] = ()) -> str:
    said = ("--output", f"{cluster.folder}/{name}-%j.out")
    return cluster.submit(*said, *sbatch, f"infra/slurm/{name}.sbatch", *arguments, env=ENVIRONMENT)


def _said(cluster: slurm.Slurm, name: str, job: str) -> str:
    return (cluster.folder / f"{name}-{job}.out").read_text()


# --- training ----------------------------------------------------------------------------------------------------


def _frozen_once_saved(cluster: slurm.Slurm, out: Path) -> int:
    """Stop a rank behind its run's first checkpoint, so that the run cannot end before it is preempted; its id."""
    end_s = time.monotonic() + 150
    while not list(out.glob("step-*/COMMIT.json")):
        assert time.monotonic() < end_s, cluster.told()
        time.sleep(0.01)
    for process in harness.processes(out):
        if b"\0RANK=1\0" in Path(f"/proc/{process}/environ").read_bytes():
            os.kill(process, signal.SIGSTOP)
            return process
    raise AssertionError(cluster.told())


def _go_on_once_asked(cluster: slurm.Slurm, rank: int) -> None:
    """Let a stopped rank go on as soon as SIGUSR1 waits for it."""
    end_s = time.monotonic() + 60
    pending = re.compile(r"^ShdPnd:\s*(\w+)$", re.MULTILINE)
    while not (found := pending.search(Path(f"/proc/{rank}/status").read_text())) or not int(found[1], 16) & USR1:
        assert time.monotonic() < end_s, f"rank {rank} was not asked to stop: {cluster.told()}"
        time.sleep(0.05)
    os.kill(rank, signal.SIGCONT)


def _same(out: Path, calm: Path) -> None:
    for name in (checkpoint.MODEL_NAME, checkpoint.OPTIM_NAME):
        last = Path(checkpoint.folder(STEPS)) / name
        assert (out / last).read_bytes() == (calm / last).read_bytes()
    found, wanted = (read_rows(Store.at(str(folder))) for folder in (out, calm))
    assert [steady(row) for row in found] == [steady(row) for row in wanted]


def test_a_preempted_training_on_two_nodes_is_that_of_one_machine(cluster: slurm.Slurm, tmp_path: Path) -> None:
    data = str(write_pairs(str(tmp_path / "data"), chip_px=120).url)
    out, calm = tmp_path / "run", tmp_path / "calm"
    flags = ("--recipe", "tiny", "--data", data, "--steps", str(STEPS), "--checkpoint-every", "2")
    job = _submit(cluster, "croma", *flags, "--out", str(out))
    frozen = _frozen_once_saved(cluster, out)
    urgent = cluster.submit("-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "true")
    _go_on_once_asked(cluster, frozen)
    cluster.wait(urgent, "COMPLETED")
    ended = cluster.wait(job, "COMPLETED")
    said = _said(cluster, "croma", job)
    assert ended["Restarts"] == "1"
    assert [line for line in said.splitlines() if line.startswith("start ")] == [
        f"start {count} of job {job} on n[1-2]" for count in (0, 1)
    ]
    assert said.count("stopped: asked to stop") == 1
    harness.run(*harness.LAUNCH, "train/croma.py", *flags, "--out", str(calm))
    _same(out, calm)


def test_an_array_of_seeds_is_the_runs_of_one_call(cluster: slurm.Slurm, tmp_path: Path) -> None:
    out, calm = tmp_path / "array", tmp_path / "calm"
    flags = ("--data", "planted:users=60,items=40,groups=3", "--epochs", "2")
    job = _submit(cluster, "itr", *flags, "--out", str(out), sbatch=("--array=0-1", "--cpus-per-task=1", "--mem=1G"))
    cluster.wait_for_all(job)
    harness.run("train/itr.py", *flags, "--out", str(calm), "--seeds", "2")
    kept = {name: sha for name, sha in harness.tree(calm).items() if name.endswith((".safetensors", "groups.json"))}
    assert {name.partition("/")[0] for name in kept} == {"recommended-seed-0", "recommended-seed-1"}
    found = harness.tree(out)
    assert {name: found[name] for name in kept} == kept


# --- ingest ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def what(tiny: Tiny) -> list[str]:  # noqa: F811
    """A small request of three units."""
    return ["--aoi", tiny.aoi, "--catalog", f"{tiny.root}/catalog.json", "--chip-px", "24"]


@pytest.fixture(scope="module")
def local(what: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one process makes of it."""
    out = tmp_path_factory.mktemp("local") / "out"
    environment = {"PYTHONPATH": str(harness.ROOT)}
    harness.run("-m", "ingest.cli", "build-shards", *what, "--workers", "0", "--out", str(out), env=environment)
    return harness.tree(out)


def test_ingest_on_two_nodes_gives_the_bytes_of_one_process(
    cluster: slurm.Slurm, what: list[str], local: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    small = ("--ntasks-per-node=1", "--mem-per-cpu=1500M")
    job = _submit(cluster, "ingest", *what, "--out", str(out), sbatch=small)
    cluster.wait(job, "COMPLETED")
    said = _said(cluster, "ingest", job)
    for node in slurm.NODES:
        assert f"Start worker at: tcp://{cluster.network[node].address}:" in " ".join(said.split()), said
    assert harness.tree(out) == local


def test_workers_of_dask_jobqueue_do_as_well(
    cluster: slurm.Slurm, what: list[str], local: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("dask_jobqueue", reason="needs the slurm extra")
    size = ("--jobs", "2", "--cores", "1", "--memory", "1500MB", "--hours", "1", "--interface", "eth0")
    command = ("infra/slurm/dask_workers.py", *size, "--logs", str(tmp_path))
    with _beside(cluster, *command) as printed:
        address = printed.readline().strip()
        out = tmp_path / "out"
        build = ("-m", "ingest.cli", "build-shards", *what, "--out", str(out), "--scheduler", address)
        cluster.run(sys.executable, *build, env=ENVIRONMENT, timeout_s=120)
    assert harness.tree(out) == local
    cluster.wait_for_all()


@contextlib.contextmanager
def _beside(cluster: slurm.Slurm, *arguments: str) -> Iterator[IO[str]]:
    """What a Python command beside the controller prints; it is interrupted at the end."""
    environment = {**cluster.environment, **ENVIRONMENT}
    process = cluster.head.start(
        sys.executable, *arguments, cwd=harness.ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process.stdout
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
