"""Loggers get what a run tells, in their own words, and never stop it: checked with modules that only remember."""

import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.store import Store
from train import checkpoint, flags, loggers
from train.choices import CROMA_RECIPES
from train.launch import launch
from train.loggers import SERVICES, About, Beside, check
from train.meter import PROBES_NAME, read_rows, steady
from train.recipes import croma

pytestmark = pytest.mark.train
CURVES = {"loss": 1.5, "probe/recall@1/s1_to_s2": 0.25}
PICTURES = {"reconstruction/s1": np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)}
ABOUT = About(name="run", key="abc123", config={"recipe": {"stream": {"global_batch": 4}, "steps": 8}})


class Service(types.ModuleType):
    """Stands for wandb, MLflow and Trackio at once: the functions of theirs that are used, with their arguments."""

    def __init__(self, name: str, *, fails: tuple[str, ...] = ()) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple, dict]] = []
        self.known: list[Any] = []
        self._fails = fails
        self.Image = lambda picture: ("image", picture.shape)

    def _note(self, what: str, *args: Any, **more: Any) -> None:
        if what in self._fails:
            raise ConnectionError(f"no {what} today")
        self.calls.append((what, args, more))

    def init(self, *, project: str, name: str, config: dict, resume: str, **more: Any) -> "Service":
        more.setdefault("id", None)
        more.pop("embed", None)
        self._note("init", project=project, name=name, config=config, resume=resume, **more)
        return self

    def log(self, data: dict, step: int | None = None) -> None:
        self._note("log", data, step)

    def finish(self) -> None:
        self._note("finish")

    def set_experiment(self, name: str) -> Any:
        self._note("set_experiment", name)
        return types.SimpleNamespace(experiment_id="7")

    def search_runs(self, ids: list[str], *, filter_string: str, max_results: int, output_format: str) -> list:
        assert (ids, max_results, output_format) == (["7"], 1, "list")
        return [one for one in self.known if one.key in filter_string]

    def start_run(self, run_id: str | None = None, *, run_name: str | None = None, tags: dict | None = None) -> None:
        self._note("start_run", run_id, run_name, tags)

    def log_params(self, params: dict) -> None:
        self._note("log_params", params)

    def log_metrics(self, metrics: dict, step: int) -> None:
        self._note("log_metrics", metrics, step)

    def log_image(self, image: np.ndarray, *, key: str, step: int) -> None:
        self._note("log_image", image.shape, key, step)

    def end_run(self) -> None:
        self._note("end_run")


def service(monkeypatch: pytest.MonkeyPatch, name: str, *, fails: tuple[str, ...] = ()) -> Service:
    for variable in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    fake = Service(name, fails=fails)
    monkeypatch.setitem(sys.modules, name, fake)
    return fake


def told(fake: Service, name: str, about: About = ABOUT) -> list[tuple[str, tuple, dict]]:
    logger = SERVICES[name](about)
    logger.write(CURVES, 5)
    logger.draw(PICTURES, 5)
    logger.close()
    return fake.calls


@pytest.mark.parametrize(("name", "run", "key"), [("wandb", "run", "abc123"), ("trackio", "run-abc123", None)])
def test_wandb_and_trackio(monkeypatch: pytest.MonkeyPatch, name: str, run: str, key: str | None) -> None:
    init, *rest = told(service(monkeypatch, name), name)
    wanted = {"project": "sentinel-pretrain", "name": run, "config": ABOUT.config, "resume": "allow", "id": key}
    assert init == ("init", (), wanted)
    picture = {"reconstruction/s1": ("image", (6, 4, 3))}
    assert rest == [("log", (CURVES, 5), {}), ("log", (picture, 5), {}), ("finish", (), {})]


def test_mlflow_begins_a_run_and_later_attempts_go_on_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = service(monkeypatch, "mlflow")
    logged = [
        ("log_metrics", ({"loss": 1.5, "probe/recall_at_1/s1_to_s2": 0.25}, 5), {}),
        ("log_image", ((6, 4, 3), "reconstruction/s1", 5), {}),
        ("end_run", (), {}),
    ]
    assert told(fake, "mlflow") == [
        ("set_experiment", ("sentinel-pretrain",), {}),
        ("start_run", (None, "run", {"sentinel-pretrain.key": "abc123"}), {}),
        ("log_params", ({"recipe.stream.global_batch": 4, "recipe.steps": 8},), {}),
        *logged,
    ]
    fake.calls.clear()
    fake.known = [types.SimpleNamespace(key="abc123", info=types.SimpleNamespace(run_id="r1"))]
    assert told(fake, "mlflow")[1:] == [("start_run", ("r1", None, None), {}), *logged]


def test_projects_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, variable in (("wandb", "WANDB_PROJECT"), ("mlflow", "MLFLOW_EXPERIMENT_NAME")):
        fake = service(monkeypatch, name)
        monkeypatch.setenv(variable, "mine")
        what, args, more = told(fake, name)[0]
        assert "mine" in (more.get("project"), *args), what


def test_a_service_that_is_not_installed_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SERVICES:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(UsageError, match=rf"--log {name}: .*pip install 'sentinel-pretrain\[{name}\]'"):
            check([name])
    with pytest.raises(UsageError, match="no such logger"):
        check(["printer"])


@pytest.mark.parametrize("fails", ["begin", "write", "draw", "close"])
def test_a_logger_that_fails_is_off_and_says_so_once(fails: str) -> None:
    said: list[str] = []
    calls: list[str] = []

    class Failing:
        def __getattr__(self, name: str) -> Any:
            def call(*_: object) -> None:
                calls.append(name)
                if name == fails:
                    raise SystemError("gone")

            return call

    def begin() -> Any:
        if fails == "begin":
            raise ImportError("gone")
        return Failing()

    logger = Beside("service", begin, said.append)
    for step in (1, 2):
        logger.write(CURVES, step)
        logger.draw(PICTURES, step)
    logger.close()
    assert len(said) == 1
    assert "service failed" in said[0]
    assert "gone" in said[0]
    every = ["write", "draw", "write", "draw", "close"]
    assert calls == {"begin": [], "write": every[:1], "draw": every[:2], "close": every}[fails]


def test_a_logger_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "_CLOSING_S", 0.05)
    monkeypatch.setattr(loggers, "_WAITING", 3)
    for rows, why in ((1, "did not finish"), (9, "is 3 rows behind")):
        said: list[str] = []
        forever = threading.Event()
        logger = Beside("service", lambda forever=forever: forever.wait(60), said.append)
        for step in range(rows):
            logger.write(CURVES, step)
        logger.close()
        assert len(said) == 1
        assert why in said[0]
        forever.set()


def train(data: Store, out: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Store:
    command = ["croma.py", "--recipe", "tiny", "--data", data.url, "--out", str(out), "--batch", "4", "--threads", "2"]
    monkeypatch.setattr("sys.argv", [*command, "--steps", "2", "--probe-every", "2", *more])
    assert launch(flags.parse("", CROMA_RECIPES), croma.RECIPES, _objective) == 0
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    return Store.at(str(out))


def _objective(run: Any) -> Any:
    from train.objective import CromaObjective

    return CromaObjective(run.model, seed=run.seed)


@pytest.fixture
def data(pairs_at: Any, tmp_path: Path) -> Store:
    return pairs_at(str(tmp_path / "data"), chip_px=120, shards=(("train", 8), ("val", 2)))


def test_a_run_tells_all_of_them_and_outlives_those_that_fail(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = service(monkeypatch, "wandb")
    service(monkeypatch, "mlflow", fails=("log_metrics",))
    service(monkeypatch, "trackio", fails=("init",))
    names = [word for name in SERVICES for word in ("--log", name)]
    out, plain = train(data, tmp_path / "logged", monkeypatch, *names), train(data, tmp_path / "plain", monkeypatch)
    rows = read_rows(out)
    assert [steady(row) for row in rows] == [steady(row) for row in read_rows(plain)]
    last = f"{checkpoint.folder(2)}/{checkpoint.MODEL_NAME}"
    assert out.read(last) == plain.read(last)
    (init, *logged, finish) = good.calls
    assert init[2]["name"] == "logged"
    assert init[2]["id"] == out.read("key.txt").decode()
    assert init[2]["config"]["recipe"]["name"] == "tiny"
    assert finish[0] == "finish"
    curves = [args for what, args, _ in logged if "loss" in args[0]]
    assert [(data["loss"], step) for data, step in curves] == [(row["loss"], row["step"]) for row in rows]
    (probed,) = read_rows(out, PROBES_NAME)
    values = {f"probe/{name}": value for name, value in probed["values"].items()}
    assert ("log", (values, 2), {}) in logged
    assert ("log", ({f"reconstruction/{x}": ("image", (240, 360, 3)) for x in ("s2", "s1")}, 2), {}) in logged
    heard = capsys.readouterr().err
    assert heard.count("mlflow failed: ConnectionError('no log_metrics today')") == 1
    assert heard.count("trackio failed: ConnectionError('no init today')") == 1


def test_a_missing_service_leaves_nothing_behind(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    command = ["croma.py", "--recipe", "tiny", "--data", data.url, "--out", str(tmp_path / "run"), "--log", "wandb"]
    monkeypatch.setattr("sys.argv", command)
    assert launch(flags.parse("", CROMA_RECIPES), croma.RECIPES, _objective) == 2
    assert "pip install 'sentinel-pretrain[wandb]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
