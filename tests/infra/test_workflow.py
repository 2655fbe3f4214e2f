"""CI on GitHub is `.ci/run` and nothing more, with pinned actions."""

import re
from pathlib import Path

import check_jsonschema
import yaml
from click.testing import CliRunner

ROOT = Path(__file__).parents[2]
FILE = ROOT / ".github" / "workflows" / "ci.yaml"
(JOB,) = yaml.safe_load(FILE.read_text())["jobs"].values()


def test_it_runs_what_ci_runs() -> None:
    assert [step["run"] for step in JOB["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert re.search(r"python:3\.11-", JOB["container"]["image"])


def test_actions_are_pinned_to_a_commit() -> None:
    used = [step["uses"] for step in JOB["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name) for name in used)


def test_github_would_take_it() -> None:
    for schema in ("vendor.github-workflows", "custom.github-workflows-require-timeout"):
        found = CliRunner().invoke(check_jsonschema.main, ["--builtin-schema", schema, str(FILE)])
        assert found.exit_code == 0, found.output
