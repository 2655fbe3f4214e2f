"""Command lines that answer at once, name the nearest word for a slip, and tell what would run."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from pipeline.errors import UsageError
from train import choices, command_line, flags

pytestmark = pytest.mark.train
ROOT = Path(__file__).parents[2]
COMMANDS = sorted(
    path.name for path in (ROOT / "train").glob("*.py") if path.read_text().startswith("# PYTHON_ARGCOMPLETE_OK\n")
)
HEAVY = ("torch", "numpy", "fsspec", "accelerate", "rich")


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train" / words[0]), *words[1:]]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | environment, cwd=ROOT, check=False
    )


def test_every_script_is_known_as_a_command() -> None:
    scripts = {path.name for path in (ROOT / "train").glob("*.py") if "__main__" in path.read_text()}
    assert set(COMMANDS) == scripts
    assert {"croma.py", "satmae.py", "itr.py", "embed.py", "probe.py", "export.py", "index.py"} <= scripts


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_nothing_heavy_and_says_everything(name: str) -> None:
    code = (
        "import runpy, sys\nsys.argv = [sys.argv[1], '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        f"except SystemExit:\n    print([m for m in {HEAVY} if m in sys.modules])"
    )
    path = str(ROOT / "train" / name)
    told = subprocess.check_output([sys.executable, "-c", code, path], text=True, timeout=60, cwd=ROOT)
    assert told.splitlines()[-1] == "[]"
    assert "exit codes:" in told
    description = ast.get_docstring(ast.parse((ROOT / "train" / name).read_text()))
    assert description is not None
    assert f"train/{name} " in description, "an example is missing"
    assert description in told


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_has_help(name: str) -> None:
    module = importlib.import_module(f"train.{name.removesuffix('.py')}")
    made = module.parser() if hasattr(module, "parser") else flags.parser("", ("tiny",))
    assert all(action.help for action in made._actions)


def test_choices_are_those_of_the_tables() -> None:
    from train.grouprec import modes, names
    from train.loggers import SERVICES
    from train.models.contrastive import Mode
    from train.recipes import croma, satmae

    assert set(choices.CROMA_RECIPES) == set(croma.RECIPES)
    assert set(choices.SATMAE_RECIPES) == set(satmae.RECIPES)
    assert set(choices.SERVICES) == set(SERVICES)
    assert set(names.MODE_NAMES) == set(modes.MODES)
    assert get_args(Mode) == choices.MODES


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("croma.py", "--recpie", "tiny"), "there is no --recpie: did you mean --recipe?"),
        (("croma.py", "--recipe", "tinny"), "'tinny' is none of tiny, base, large: did you mean tiny?"),
        (("satmae.py", "--recipe=group_lrage"), "did you mean group_large?"),
        (("itr.py", "--sede=3"), "there is no --sede: did you mean --seed?"),
        (("export.py", "RUN", "--layout", "relased"), "did you mean released?"),
        (("probe.py", "--zzz"), "there is no --zzz\n"),
    ],
)
def test_slips_of_the_keyboard_are_understood(words: tuple[str, ...], hint: str) -> None:
    done = _run(*words)
    assert done.returncode == 2
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_values_that_look_like_flags_stay_values() -> None:
    parsed = flags.parse("", ("tiny",), ["--recipe", "tiny", "--data=--x", "--out", "b", "--bbox=-5,1,2,3"])
    assert (parsed.data, parsed.bbox) == ("--x", "-5,1,2,3")


def test_shells_complete_flags(tmp_path: Path) -> None:
    line = "croma.py --rec"
    done = _run(
        "croma.py", _ARGCOMPLETE="1", COMP_LINE=line, COMP_POINT=str(len(line)), _ARGCOMPLETE_IFS="\n",
        _ARGCOMPLETE_STDOUT_FILENAME=str(tmp_path / "words"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [word.strip() for word in (tmp_path / "words").read_text().splitlines()] == ["--recipe", "--recompute"]


def test_bad_input_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> int:
        raise UsageError("no such run")

    def interrupted() -> int:
        raise KeyboardInterrupt

    assert command_line.explained(fails) == 2
    assert command_line.explained(interrupted) == 130
    assert capsys.readouterr().err == "error: no such run\ninterrupted\n"


@pytest.mark.parametrize(("environment", "says"), [({"RANK": "1", "LOCAL_RANK": "1"}, False), ({"RANK": "8"}, True)])
def test_one_rank_of_each_machine_says_what_is_wrong_with_it(
    *, environment: dict[str, str], says: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DATA may be there on one machine, and not on another."""
    for name, value in {"LOCAL_RANK": "0", **environment}.items():
        monkeypatch.setenv(name, value)

    def fails() -> int:
        raise UsageError("no such data")

    assert command_line.explained(fails) == 2
    assert bool(capsys.readouterr().err) is says


def test_a_dry_run_says_what_follows_and_writes_nothing(pairs_at: Any, tmp_path: Path) -> None:
    data = pairs_at(str(tmp_path / "data"), chip_px=120, shards=(("train", 8), ("val", 2)))
    out = tmp_path / "run"
    asked = ("croma.py", "--recipe", "tiny", "--data", data.url, "--out", str(out), "--batch", "4", "--steps", "6")
    done = _run(*asked, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "nothing was written (--dry-run)" in done.stderr
    assert dict(line.split(maxsplit=1) for line in done.stderr.splitlines()[:-1])["epochs"] == "3.0"
    assert not out.exists()
