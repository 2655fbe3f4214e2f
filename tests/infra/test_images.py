"""The images are built and do their work, as an ordinary user who may write to mounts and /tmp only.

`pytest -m soak tests/infra/test_images.py` also builds the trainer, stops it, and runs infra/k8s/overlays/cpu-test.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra import manifests, podman
from ingest.cli import app

pytestmark = pytest.mark.timeout(1800)
AREA = "13.70,48.20,13.715,48.21"


@pytest.fixture(scope="module")
def engine() -> Iterator[podman.Podman]:
    """A podman with the base image."""
    if absent := podman.missing():
        _unusable(f"images need {', '.join(absent)}: run .ci/install-packages, and the tests as root")
    try:
        with podman.running() as ready:
            yield ready
    except podman.Unusable as error:
        _unusable(str(error))


def _unusable(reason: str) -> None:
    if os.environ.get("REQUIRE_REAL") == "1":
        pytest.fail(f"{reason}; REQUIRE_REAL=1 asks for it")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def ingest(engine: podman.Podman) -> str:
    """The image without torch."""
    return engine.build("ingest", "--build-arg", "BYTECODE=0")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mount that anybody may write to."""
    folder = tmp_path_factory.mktemp("data")
    folder.chmod(0o777)
    return folder


def _run(engine: podman.Podman, image: str, data: Path, *command: str) -> str:
    return engine.must("run", "--rm", "--network=none", *podman.LOCKED, "--volume", f"{data}:/data", image, *command)


def _exit_code(engine: podman.Podman, container: str) -> int:
    return int(engine.must("inspect", "--format={{.State.ExitCode}}", container))


def _said(engine: podman.Podman, container: str) -> str:
    done = engine("logs", container)
    return done.stdout + done.stderr


def _wait_until(holds: Callable[[], bool], told: Callable[[], str], *, limit_s: float = 280) -> None:
    end_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end_s, told()
        time.sleep(0.2)


def _make_shards(engine: podman.Podman, ingest: str, data: Path) -> int:
    """A data set of a synthetic Earth, once; its samples."""
    _run(engine, ingest, data, "ingest", "make-earth", "--aoi", AREA, "--out", "/data/earth")
    asked = ("--aoi", AREA, "--catalog", "/data/earth", "--chip-px", "120", "--val", "0", "--workers", "1")
    built = _run(engine, ingest, data, "ingest", "build-shards", *asked, "--out", "/data/shards", "--json")
    return int(json.loads(built)["accepted"])


def test_ingest_makes_shards_as_an_ordinary_user(engine: podman.Podman, ingest: str, data: Path) -> None:
    samples = _make_shards(engine, ingest, data)
    found = CliRunner().invoke(app, ["verify", str(data / "shards"), "--deep", "--json"])
    assert json.loads(found.output)["samples"] == samples > 0
    assert {path.stat().st_uid for path in (data / "shards").rglob("*")} == {10001}


def test_the_user_may_do_nothing_more(engine: podman.Podman, ingest: str, data: Path) -> None:
    code = "import os; print(os.getuid(), open('/proc/self/status').read().split('CapEff:')[1].split()[0])"
    assert _run(engine, ingest, data, "python", "-c", code).split() == ["10001", "0" * 16]
    done = engine("run", "--rm", "--network=none", *podman.LOCKED, ingest, "python", "-c", "open('/app/x', 'w')")
    assert "Read-only file system" in done.stderr
    volume = ("--volume=runs:/runs", ingest, "python", "-c", "open('/runs/x', 'w')")
    engine.must("run", "--rm", "--network=none", *podman.LOCKED, *volume)


SLEEPS = 'import time; print("up", flush=True); time.sleep(600)'
SAVES = 'import signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); print("up", flush=True); time.sleep(600)'
CHILD = ("sh", "-c", 'trap : TERM; python -c "$0" & wait; wait $!', SAVES)
"""A shell that waits for a child, and ends as it does."""


@pytest.mark.parametrize(("command", "code"), [(("python", "-c", SLEEPS), 143), (CHILD, 75)], ids=["alone", "child"])
def test_a_stop_reaches_every_process(engine: podman.Podman, ingest: str, command: tuple[str, ...], code: int) -> None:
    # Were SIGTERM lost, at process 1 or on the way to a child, the stop would end in SIGKILL: 137.
    name = f"stopped-{code}"
    engine.must("run", "--detach", f"--name={name}", "--network=none", *podman.LOCKED, ingest, *command)
    _wait_until(lambda: "up" in _said(engine, name), lambda: _said(engine, name))
    engine.must("stop", "--time=10", name)
    assert _exit_code(engine, name) == code


def test_torch_is_not_in_the_ingest_image(engine: podman.Podman, ingest: str) -> None:
    code = "import importlib.util as u; print([n for n in ('torch', 'accelerate', 'train') if u.find_spec(n)])"
    assert engine.must("run", "--rm", "--network=none", *podman.LOCKED, ingest, "python", "-c", code).strip() == "[]"


@pytest.fixture(scope="module")
def trainer(engine: podman.Podman) -> str:
    """The image with torch for CPUs."""
    return engine.build("train", "--build-arg", "TORCH=cpu", "--build-arg", "BYTECODE=0")


@pytest.mark.soak
def test_two_ranks_are_stopped_and_saved(engine: podman.Podman, ingest: str, trainer: str, data: Path) -> None:
    _make_shards(engine, ingest, data)
    where = ("--recipe", "tiny", "--data", "/data/shards", "--out", "/data/stopped", "--steps", "5000", "--resume")
    launch = ("python", "infra/accelerate/launch.py", "--config_file", "infra/accelerate/cpu-two-ranks.yaml")
    mounts = ("--volume", f"{data}:/data", "--shm-size=1g")
    how = ("--detach", "--name=ranks", "--network=none", *podman.LOCKED, *mounts)
    engine.must("run", *how, trainer, *launch, "train/croma.py", *where)
    rows = data / "stopped" / "metrics.jsonl"
    _wait_until(lambda: rows.exists() and rows.stat().st_size > 0, lambda: _said(engine, "ranks"))
    engine.must("stop", "--time=200", "ranks", timeout_s=240)
    assert _exit_code(engine, "ranks") == 75, _said(engine, "ranks")
    assert list((data / "stopped").glob("step-*/COMMIT.json"))


@pytest.mark.soak
def test_the_pods_of_cpu_test_train_together(engine: podman.Podman, ingest: str, trainer: str, tmp_path: Path) -> None:
    overlay, images = "overlays/cpu-test", {"ingest": ingest, "train": trainer}
    (pod,) = manifests.pods(manifests.find(overlay, "Job"))
    engine.must("network", "create", "train")
    for index in ("0", "1"):
        (tmp_path / index).mkdir()
        (tmp_path / index).chmod(0o777)
        for container in manifests.containers(pod):
            given = {"MACHINE_RANK": index}
            variables = manifests.environment(overlay, container, given)
            words = manifests.command(container, variables)
            env = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
            network = ("--network=train", f"--hostname=train-{index}", f"--network-alias=train-{index}.train")
            last = container["name"] == "train"
            how = ("--detach", f"--name=train-{index}", *network) if last else ("--rm", "--network=none")
            image = images[container["image"].partition("/")[2].partition(":")[0]]
            (work,) = [one["mountPath"] for one in container["volumeMounts"] if one["name"] == "work"]
            mounts = ("--volume", f"{tmp_path / index}:{work}", "--shm-size=1g", "--user=10001:10001")
            engine.must("run", *how, *podman.LOCKED, *mounts, *env, image, *words)
    for index in ("0", "1"):
        engine("wait", f"train-{index}", timeout_s=600)
        assert _exit_code(engine, f"train-{index}") == 0, _said(engine, f"train-{index}")
    assert (tmp_path / "0" / "run" / "step-00000020" / "COMMIT.json").exists()
    assert json.loads((tmp_path / "0" / "run" / "run.json").read_text())["ranks"] == 2
