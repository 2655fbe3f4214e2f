"""The command as a person meets it: one line and exit code 2 for every mistake, and flags that do not change."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ingest import cli

pytestmark = pytest.mark.ingest

SHARED = {
    "--aoi", "--catalog", "--dates", "--max-gap", "--max-cloud", "--max-nodata", "--chip-px", "--grid", "--s1", "--s2",
    "--labels", "--codec", "--val", "--seed", "--kind", "--frames", "--min-gap", "--bands",
    "--orbit", "--tracks", "--one-to-one", "--seasons", "--s1-gap",
    "--around", "--block-px", "--guard", "--sample", "--sampler", "--weights", "--shares", "--spread",
    "--cloud-percent", "--cloud-model",
}  # fmt: skip
FLAGS = {
    "build-shards": SHARED | {"--out", "--workers", "--scheduler", "--refresh", "--progress", "--json"},
    "plan": SHARED | {"--out", "--explain", "--workers", "--gbit", "--usd-per-gb", "--refresh", "--json"},
    "doctor": SHARED | {"--out", "--workers", "--json"},
    "report": {"out", "--page", "--sheets", "--samples"},
    "stats": {"out", "--by", "--threads", "--json"},
    "shards": {"--from-cube", "--out", "--chip-px", "--codec", "--threads", "--progress", "--json"},
    "verify": {"out", "--deep", "--threads", "--json"},
    "make-earth": {"--aoi", "--around", "--out", "--dates", "--seed", "--noise", "--no-noise", "--json"},
}
DEFAULTS = {
    "max_gap": None, "max_cloud": 20.0, "max_nodata": 1.0, "chip_px": 264, "grid": "utm", "s1": None,
    "s1_gap": None, "s2": "l2a",
    "labels": "", "codec": "b2", "val": 10.0, "seed": 0, "dates": None, "kind": "pair", "frames": None,
    "min_gap": None, "bands": "", "orbit": "any", "tracks": "", "one_to_one": False, "seasons": False,
    "around": None, "block_px": None, "guard": "0m", "sample": None,
    "sampler": None, "weights": None, "shares": None, "spread": None, "cloud_percent": None,
    "cloud_model": "",
}  # fmt: skip


def _commands() -> dict[str, Any]:
    return typer.main.get_command(cli.app).commands  # type: ignore[attr-defined,no-any-return]


def test_flags_are_frozen() -> None:
    found = {
        name: {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        - {"--help"}
        for name, command in _commands().items()
    }
    assert found == FLAGS


@pytest.mark.parametrize("name", ["build-shards", "plan"])
def test_defaults_are_frozen(name: str) -> None:
    found = {parameter.name: parameter for parameter in _commands()[name].params}
    assert {key: found[key].default for key in DEFAULTS} == DEFAULTS
    required = {key for key, parameter in found.items() if parameter.required}
    assert required == {"aoi", "catalog"} | ({"out"} if name == "build-shards" else set())


def test_every_flag_and_command_has_help() -> None:
    for command in _commands().values():
        assert command.help
        assert all(parameter.help for parameter in command.params)


def test_help_imports_nothing_heavy() -> None:
    heavy = ("numpy", "rasterio", "dask", "zarr", "shapely")
    code = f"import sys, ingest.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`ingest ARGUMENTS` in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ingest", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


SQUARE = [[15.0, 47.8], [15.1, 47.8], [15.1, 47.9], [15.0, 47.9], [15.0, 47.8]]
FILES: dict[str, Any] = {
    "bowtie": {"type": "Polygon", "coordinates": [[SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3], SQUARE[0]]]},
    "point": {"type": "Point", "coordinates": [15, 48]},
    "nothing": {"type": "FeatureCollection", "features": []},
    "null": {"type": "Feature", "properties": {}, "geometry": None},
    "other": {"hello": "world"},
    "text": "not JSON at all",
}
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no scene in the area": ({"--aoi": "1,1,1.1,1.1"}, "no sentinel-2-l2a scene"),
    "no scene in time": ({"--dates": "2030-01-01/2030-02-01"}, "no sentinel-2-l2a scene"),
    "no pair in the gap": ({"--max-gap": "1h"}, "no chip can be made"),
    "no whole cell": ({"--chip-px": "2048"}, "no cell of 2048 pixels|no chip can be made"),
    "crosses itself": ({"--aoi": "bowtie"}, "Self-intersection"),
    "a point": ({"--aoi": "point"}, "is a Point"),
    "no feature": ({"--aoi": "nothing"}, "holds no polygon"),
    "null geometry": ({"--aoi": "null"}, "not GeoJSON"),
    "not GeoJSON": ({"--aoi": "other"}, "not GeoJSON"),
    "not JSON": ({"--aoi": "text"}, "cannot be read as GeoJSON"),
    "no such area": ({"--aoi": "nowhere.geojson"}, "neither a file"),
    "west above east": ({"--aoi": "15.1,47.8,15.0,47.9"}, "west must be below east"),
    "at the pole": ({"--aoi": "15,85,16,86"}, "-80 to 84"),
    "metres": ({"--aoi": "500000,5300000,501000,5301000"}, "not degrees"),
    "no such catalog": ({"--catalog": "/nowhere/at/all"}, "is not there"),
    "no such parquet": ({"--catalog": "/nowhere/items.parquet"}, "cannot be searched|is not there"),
    "unknown catalog": ({"--catalog": "nosuch://x/catalog.json"}, "cannot open"),
    "a host that is none": ({"--catalog": "http://[::1"}, "--catalog http://.*Check the address"),
    "reversed dates": ({"--dates": "2023-07-01/2023-06-01"}, "--dates"),
    "words for dates": ({"--dates": "spring/summer"}, "--dates"),
    "one date": ({"--dates": "2023-07-01"}, "--dates"),
    "first day of all": ({"--dates": "0001-01-01/.."}, ""),
    "chip of nothing": ({"--chip-px": "0"}, "--chip-px 0"),
    "negative chip": ({"--chip-px": "-5"}, "--chip-px -5"),
    "unknown s1": ({"--s1": "slc"}, "--s1"),
    "gap without unit": ({"--max-gap": "3"}, "--max-gap"),
    "frames of pairs": ({"--frames": "3"}, "--kind stack"),
    "a gap within pairs": ({"--kind": "pair", "--min-gap": "20d"}, "--kind stack"),
    "a band of Level-1C in pairs": ({"--bands": "B02,B10"}, "--s2 l1c"),
    "stacks of nothing": ({"--kind": "stack", "--frames": "0"}, "--frames 0"),
    "stacks of less": ({"--kind": "stack", "--frames": "-2"}, "--frames -2"),
    "stack gap without unit": ({"--kind": "stack", "--min-gap": "20"}, "--min-gap '20'"),
    "a band of Level-1C": ({"--kind": "stack", "--bands": "B02,B10"}, "B10"),
    "too few dates": ({"--kind": "stack", "--frames": "4", "--min-gap": "1d"}, "6 cells: 3 dates, 4 wanted"),
    "dates too near": ({"--kind": "stack", "--frames": "2", "--min-gap": "21d"}, "6 cells: 1 dates, 2 wanted"),
    "a cloud model of nobody": ({"--cloud-model": "nowhere:model"}, "--cloud-model 'nowhere:model'"),
    "cloud above all": ({"--max-cloud": "101"}, "--max-cloud"),
    "labels of nobody": ({"--labels": "land-cover,nobody"}, "--labels"),
    "negative val": ({"--val": "-1"}, "--val"),
    "unknown protocol": ({"--out": "nosuch://bucket/x"}, "cannot open nosuch://bucket/x"),
    "out is a file": ({"--out": "FILE"}, ""),
    "out below a file": ({"--out": "FILE/deeper"}, ""),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(
    *, name: str, run: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, match = MISTAKES[name]
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for stem, document in FILES.items():
        (tmp_path / f"{stem}.geojson").write_text(document if isinstance(document, str) else json.dumps(document))
    (tmp_path / "FILE").write_text("a file")
    flags = {"--aoi": tiny.aoi, "--catalog": str(tiny.root), "--out": str(work / "out"), "--chip-px": "24"} | changes
    if flags["--aoi"] in FILES:
        flags["--aoi"] = str(tmp_path / f"{flags['--aoi']}.geojson")
    flags["--out"] = flags["--out"].replace("FILE", str(tmp_path / "FILE"))
    if name == "first day of all":
        flags["--aoi"] = "1,1,1.1,1.1"
    code, out, err = run("build-shards", *(part for flag in flags.items() for part in flag), "--workers", "0")
    assert code == 2
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("ingest: ")
    assert "Traceback" not in err
    assert re.search(match, lines[0]), lines[0]
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["plan"],
        ["plan", "--aoi", "1,1,2,2", "--catalog", "x", "--grid", "hexagons"],
        ["plan", "--chip-px", "x"],
        ["plan", "--aoi", "1,1,2,2", "--catalog", "x", "--usd-per-gb", "inf"],
        ["plan", "--aoi", "1,1,2,2", "--catalog", "x", "--gbit", "inf"],
        ["plan", "--aoi", "1,1,2,2", "--catalog", "x", "--kind", "triple"],
        ["build-shards", "--aoi", "1,1,2,2", "--catalog", "x", "--out", "x", "--workers", "-3"],
    ],
)
def test_typers_own_mistakes_are_exit_code_two(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def _flags(tiny: Any, *more: object) -> list[object]:
    return ["--aoi", tiny.aoi, "--catalog", tiny.root, "--chip-px", "24", "--val", "0", *more]


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--out", "FILE"], "is a file"),
        (["--out", "new", "--dates", "2024-06-01/.."], "a first and a last day"),
        (["--out", "new", "--dates", "9999-12-30/9999-12-31"], "1970 to 2200"),
        (["--out", "new", "--seed", str(2**64)], "--seed"),
    ],
)
def test_an_earth_that_cannot_be_is_one_line(
    *, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], match: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("a file")
    code, out, err = run("make-earth", "--aoi", "8.5,47.3,8.53,47.32", *flags)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(match, err), err
    assert not (tmp_path / "new").exists()


def test_plan_then_build_then_again(run: Any, tiny: Any, tmp_path: Path) -> None:
    code, out, _ = run("plan", *_flags(tiny, "--out", tmp_path / "out", "--json"))
    facts = json.loads(out)
    assert code == 0
    assert (facts["chips"], facts["units"], facts["train"], facts["val"]) == (18, 3, 18, 0)
    assert facts["pairs"] == {"S2-0 + S1-0": 6, "S2-1 + S1-1": 6, "S2-2 + S1-2": 6}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["plan.md", "plan.parquet"]
    code, out, err = run("build-shards", *_flags(tiny, "--out", tmp_path / "out", "--workers", "0", "--json"))
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["chips"], summary["accepted"]) == (18, 13)
    assert summary["rejected"] == {"cloud": 2, "s2 nodata": 3}
    assert (summary["train"], summary["val"], summary["out"]) == (13, 0, str(tmp_path / "out"))
    code, out, _ = run("build-shards", *_flags(tiny, "--out", tmp_path / "out", "--workers", "0"))
    assert code == 0
    assert "accepted  13" in out


def test_plan_writes_nothing_without_out(run: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("plan", *_flags(tiny))
    assert code == 0
    assert "chips  18" in out
    assert list(tmp_path.iterdir()) == []


def test_several_areas(run: Any, tiny: Any) -> None:
    code, out, _ = run("plan", *_flags(tiny, "--aoi", tiny.aoi, "--json"))
    assert code == 0
    assert json.loads(out)["chips"] == 18


def test_verify_tells_what_is_wrong(run: Any, tiny: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("build-shards", *_flags(tiny, "--out", out, "--workers", "0"))
    code, said, err = run("verify", out)
    assert (code, err) == (0, "")
    assert "wrong  0" in said
    (out / "shards" / "train" / "u00001-0000.tar").write_bytes(b"x")
    code, _, err = run("verify", out)
    assert code == 1
    assert err.splitlines()[0].startswith("ingest: shards/train/u00001-0000.tar: ")
    code, said, err = run("verify", out, "--json")
    assert (code, err) == (1, "")
    assert json.loads(said)["wrong"][0]["where"] == "shards/train/u00001-0000.tar"
    code, _, err = run("verify", tmp_path / "nowhere")
    assert code == 2
    assert "not a finished data set" in err


def test_explain_one_cell(run: Any, tiny: Any, tmp_path: Path) -> None:
    code, out, _ = run("plan", *_flags(tiny, "--json"))
    assert json.loads(out)["cost"]["requests"] > 0
    west, south, east, north = map(float, tiny.aoi.split(","))
    point = f"{(west + east) / 2},{(south + north) / 2}"
    code, out, _ = run("plan", *_flags(tiny, "--explain", point))
    assert code == 0
    assert "6 of 6 scenes used" in out.splitlines()[0]
    code, out, _ = run("plan", *_flags(tiny, "--explain", point, "--json", "--out", tmp_path / "out"))
    assert len(json.loads(out)["scenes"]) == 6
    assert not (tmp_path / "out").exists()
    code, _, err = run("plan", *_flags(tiny, "--explain", "nowhere"))
    assert (code, len(err.splitlines())) == (2, 1)


def test_stats_and_smaller_chips_of_a_data_set(run: Any, tiny: Any, tmp_path: Path) -> None:
    run("build-shards", *_flags(tiny, "--out", tmp_path / "out", "--workers", "0"))
    code, out, _ = run(
        "shards", "--from-cube", tmp_path / "out", "--out", tmp_path / "cut", "--chip-px", "12", "--json"
    )
    assert (code, json.loads(out)["chips"]) == (0, 4 * 18)
    code, out, _ = run("stats", tmp_path / "cut", "--by", "split,season")
    assert code == 0
    assert len(out.splitlines()) == 15
    code, out, _ = run("stats", tmp_path / "cut", "--json")
    assert set(json.loads(out)) == {"train"}
