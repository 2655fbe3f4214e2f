"""Malformed requests, damaged catalogs, damaged data sets: exit code 2, one message, and not a byte written."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flaky_server import serving
from tiny_earth import Tiny
from typer.testing import CliRunner

from ingest import cli
from pipeline import store

pytestmark = pytest.mark.ingest
Run = Callable[..., str]


@pytest.fixture
def ingest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[object, str]]:
    """`ingest ARGUMENTS` in a folder of its own: exit code, and what it says on standard error."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def run(*arguments: object) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["ingest", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            return end.code or 0, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`ingest ARGUMENTS` in an empty folder, which must end with `code`, say one thing, write nothing; what it says."""
    monkeypatch.setattr(store, "_pause_s", lambda attempt: 0.0)

    def run(*arguments: object, code: int = 2) -> str:
        before = harness.tree(tmp_path)
        (tmp_path / "work").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "work")
        monkeypatch.setattr(sys, "argv", ["ingest", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        assert (caught.value.code, out) == (code, ""), err
        assert sum(line.startswith(("ingest: ", "Error: ")) for line in err.splitlines()) == 1, err
        assert "Traceback" not in err
        assert harness.tree(tmp_path) == before
        return err

    return run


def _flags(tiny: Tiny, tmp_path: Path, **changes: str | None) -> list[str]:
    given = {"--aoi": tiny.aoi, "--catalog": str(tiny.root), "--chip-px": "24", "--out": str(tmp_path / "out")}
    given |= {"--workers": "0"} | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return [word for name, value in given.items() if value is not None for word in (name, value)]


# --- flags -------------------------------------------------------------------------------------------------------

FLAGS: dict[str, dict[str, str | None]] = {
    "no aoi": {"aoi": None},
    "no catalog": {"catalog": None},
    "no out": {"out": None},
    "empty aoi": {"aoi": ""},
    "three corners": {"aoi": "15,47.8,15.1"},
    "five corners": {"aoi": "15,47.8,15.1,47.9,1"},
    "no numbers": {"aoi": "a,b,c,d"},
    "nan": {"aoi": "nan,nan,nan,nan"},
    "infinite": {"aoi": "-inf,47,inf,48"},
    "a point of a box": {"aoi": "15,47.8,15,47.8"},
    "aoi is a folder": {"aoi": "."},
    "empty catalog": {"catalog": ""},
    "catalog is a host without a port": {"catalog": "http://"},
    "nobody listens": {"catalog": "http://127.0.0.1:9/catalog.json"},
    "empty out": {"out": ""},
    "http out": {"out": "http://127.0.0.1:9/out"},
    "zero byte in out": {"out": "a\0b"},
    "unknown grid": {"grid": "mgrs"},
    "unknown kind": {"kind": "triplet"},
    "unknown codec": {"codec": "zip"},
    "chip in words": {"chip_px": "large"},
    "half a pixel": {"chip_px": "24.5"},
    "huge chip": {"chip_px": "999999999999"},
    "cloud in words": {"max_cloud": "few"},
    "cloud nan": {"max_cloud": "nan"},
    "cloud infinite": {"max_cloud": "inf"},
    "cloud below 0": {"max_cloud": "-0.1"},
    "nodata above all": {"max_nodata": "100.5"},
    "nodata nan": {"max_nodata": "nan"},
    "val above all": {"val": "101"},
    "val nan": {"val": "nan"},
    "gap of nothing": {"max_gap": "0d"},
    "gap below nothing": {"max_gap": "-3d"},
    "empty gap": {"max_gap": ""},
    "gap in weeks": {"max_gap": "1w"},
    "gap nan": {"max_gap": "nand"},
    "seed in words": {"seed": "lucky"},
    "half a seed": {"seed": "1.5"},
    "workers below 0": {"workers": "-1"},
    "workers in words": {"workers": "all"},
    "no s1": {"s1": ""},
    "only commas": {"s1": ",,"},
    "one s1 unknown": {"s1": "rtc,slc"},
    "no such day": {"dates": "2023-02-30/2023-03-01"},
    "three dates": {"dates": "2023-06-01/2023-06-02/2023-06-03"},
    "American dates": {"dates": "06/10/2023"},
    "frames in words": {"kind": "stack", "frames": "few"},
    "no gap within stacks": {"kind": "stack", "min_gap": "0h"},
    "unknown band of stacks": {"kind": "stack", "bands": "B99"},
    "more frames than there are": {"kind": "stack", "frames": "1000000"},
    "a scheduler in words": {"scheduler": "nonsense"},
    "a scheduler of no protocol": {"scheduler": "nosuch://127.0.0.1:1"},
    "an unknown flag": {"nosuch": "1"},
}


AWAY = {"nobody listens", "http out"}
"""Servers that may be there the next time."""


@pytest.mark.parametrize("name", FLAGS)
def test_flags(name: str, refused: Run, tiny: Tiny, tmp_path: Path) -> None:
    refused("build-shards", *_flags(tiny, tmp_path, **FLAGS[name]), code=69 if name in AWAY else 2)


@pytest.mark.parametrize(
    "words", [("nosuch",), ("plan", "positional"), ("build-shards", "--aoi"), ("plan", "--json=maybe"), ("--nosuch",)]
)
def test_words(words: tuple[str, ...], refused: Run) -> None:
    refused(*words)


# --- catalogs ----------------------------------------------------------------------------------------------------

DOCUMENTS: dict[str, Any] = {
    "not JSON": "hello",
    "empty": "",
    "half": '{"type": "Catalog", "links": [',
    "a page": "<html><body>Log in</body></html>",
    "no text": b"\xff\xfe\x00\x01",
    "a list": [],
    "null": None,
    "a number": 7,
    "a string": "catalog",
    "an empty object": {},
    "no links": {"type": "Catalog", "id": "x"},
    "links are null": {"type": "Catalog", "links": None},
    "links are a number": {"type": "Catalog", "links": 3},
    "links are words": {"type": "Catalog", "links": ["child"]},
    "a link without rel": {"type": "Catalog", "links": [{"href": "./a.json"}]},
    "a link without href": {"type": "Catalog", "links": [{"rel": "child"}]},
    "href is a number": {"type": "Catalog", "links": [{"rel": "child", "href": 3}]},
    "href is null": {"type": "Catalog", "links": [{"rel": "child", "href": None}]},
    "a child that is not there": {"type": "Catalog", "links": [{"rel": "child", "href": "./gone/collection.json"}]},
    "a child that is a folder": {"type": "Catalog", "links": [{"rel": "child", "href": "."}]},
    "it is its own child": {"type": "Catalog", "links": [{"rel": "child", "href": "./catalog.json"}]},
    "an item without anything": {"type": "Feature"},
    "an error as JSON": {"code": "Unauthorized", "description": "no token"},
}


def _text(document: Any) -> bytes:
    if isinstance(document, bytes):
        return document
    return (document if isinstance(document, str) and document != "catalog" else json.dumps(document)).encode()


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("where", ["folder", "server"])
def test_catalogs(*, name: str, where: str, refused: Run, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_bytes(_text(DOCUMENTS[name]))
    if where == "folder":
        refused("build-shards", *_flags(tiny, tmp_path, catalog=str(tmp_path)))
        return
    with serving(tmp_path) as (url, _):
        refused("build-shards", *_flags(tiny, tmp_path, catalog=f"{url}/catalog.json"))


def test_a_circle_of_catalogs_ends(refused: Run, tiny: Tiny, tmp_path: Path) -> None:
    for one, other in (("catalog", "b"), ("b", "catalog")):
        links = [{"rel": "child", "href": f"./{other}.json"}, {"rel": "child", "href": f"./x/../{other}.json"}]
        (tmp_path / f"{one}.json").write_text(json.dumps({"type": "Catalog", "id": one, "links": links}))
    assert "no sentinel-2-l2a scene" in refused("plan", *_flags(tiny, tmp_path, catalog=str(tmp_path), workers=None))


ITEMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no properties": lambda item: item.pop("properties"),
    "properties are null": lambda item: item.update(properties=None),
    "properties are a list": lambda item: item.update(properties=[]),
    "no assets": lambda item: item.pop("assets"),
    "assets are null": lambda item: item.update(assets=None),
    "assets are a list": lambda item: item.update(assets=[]),
    "assets without href": lambda item: [asset.pop("href") for asset in item["assets"].values()],
    "href is a number": lambda item: [asset.update(href=7) for asset in item["assets"].values()],
    "an asset is words": lambda item: item["assets"].update(B02="B02.tif"),
    "bbox is words": lambda item: item.update(bbox="everywhere"),
    "bbox of words": lambda item: item.update(bbox=["a", "b", "c", "d"]),
    "bbox is short": lambda item: item.update(bbox=[15.0, 47.8]),
    "bbox of nulls": lambda item: item.update(bbox=[None] * 4),
    "geometry is words": lambda item: item.update(geometry="square"),
    "geometry of no kind": lambda item: item.update(geometry={"type": "Square", "coordinates": []}),
    "geometry without coordinates": lambda item: item.update(geometry={"type": "Polygon"}),
    "date is words": lambda item: item["properties"].update(datetime="yesterday"),
    "date is a number": lambda item: item["properties"].update(datetime=20230610),
    "no date": lambda item: item["properties"].pop("datetime"),
    "no id": lambda item: item.pop("id"),
    "no collection": lambda item: item.pop("collection"),
    "collection is a list": lambda item: item.update(collection=["sentinel-2-l2a"]),
    "unknown epsg": lambda item: item["properties"].update({"proj:epsg": 999999}),
    "transform is short": lambda item: item["properties"].update({"proj:transform": [10, 0]}),
    "transform is words": lambda item: item["properties"].update({"proj:transform": "identity"}),
    "shape is words": lambda item: item["properties"].update({"proj:shape": ["wide", "high"]}),
}


@pytest.fixture(scope="module")
def copy(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny catalog's documents, without a pixel: a plan reads none."""
    root = tmp_path_factory.mktemp("copy") / "earth"
    shutil.copytree(tiny.root, root, ignore=shutil.ignore_patterns("*.tif"))
    return root


@pytest.mark.parametrize("name", ITEMS)
def test_items(*, name: str, refused: Run, tiny: Tiny, copy: Path, tmp_path: Path) -> None:
    """Every S2 item is damaged in one way: either the catalog is refused, or no chip can be made of it."""
    shutil.copytree(copy, tmp_path / "earth")
    for path in (tmp_path / "earth" / "sentinel-2-l2a").glob("*/*.json"):
        item = json.loads(path.read_text())
        ITEMS[name](item)
        path.write_text(json.dumps(item))
    refused("plan", *_flags(tiny, tmp_path, catalog=str(tmp_path / "earth"), workers=None))


TABLES: dict[str, Callable[[Path], object]] = {
    "empty file": lambda path: path.write_bytes(b""),
    "not Parquet": lambda path: path.write_bytes(b"id,collection\n1,2\n"),
    "half a file": lambda path: path.write_bytes(b"PAR1" + b"\0" * 100),
    "no rows": lambda path: pq.write_table(pa.table({"id": pa.array([], pa.string())}), path),
    "other columns": lambda path: pq.write_table(pa.table({"user": ["a"], "item": ["b"]}), path),
    "bbox is words": lambda path: pq.write_table(pa.table({"collection": ["sentinel-2-l2a"], "bbox": ["x"]}), path),
    "only places": lambda path: pq.write_table(
        pa.table({"collection": ["sentinel-2-l2a"], "bbox": [{"xmin": 0.0, "ymin": 0.0, "xmax": 90.0, "ymax": 90.0}]}),
        path,
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(name: str, refused: Run, tiny: Tiny, tmp_path: Path) -> None:
    TABLES[name](tmp_path / "items.parquet")
    refused("plan", *_flags(tiny, tmp_path, catalog=str(tmp_path / "items.parquet"), workers=None))


@pytest.mark.parametrize("document", ["<html></html>", "[]", "{}", '{"type": "Catalog"}', '{"conformsTo": []}'])
def test_apis_that_are_none(document: str, refused: Run, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "v1").write_text(document)
    with serving(tmp_path) as (url, _):
        refused("plan", *_flags(tiny, tmp_path, catalog=f"{url}/v1", workers=None))


# --- data sets ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of which the manifest and one unit are missing."""
    out = tmp_path_factory.mktemp("half") / "out"
    done = CliRunner().invoke(cli.app, ["build-shards", *_flags(tiny, out.parent)])
    assert done.exit_code == 0, done.output
    for name in ("manifest.json", "receipts/u00002.json"):
        (out / name).rename(out.parent / name.replace("/", "-"))
    return out


def _rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _plan_with(meta: bytes | None) -> Callable[[Path], object]:
    def write(out: Path) -> None:
        table = pq.read_table(out / "plan.parquet")
        pq.write_table(table.replace_schema_metadata(meta and {b"ingest_plan": meta}), out / "plan.parquet")

    return write


DAMAGE: dict[str, Callable[[Path], object]] = {
    "plan is empty": lambda out: (out / "plan.parquet").write_bytes(b""),
    "plan is half": lambda out: (out / "plan.parquet").write_bytes((out / "plan.parquet").read_bytes()[:500]),
    "plan is another table": lambda out: pq.write_table(pa.table({"a": [1]}), out / "plan.parquet"),
    "plan without request": _plan_with(None),
    "plan of words": _plan_with(b"hello"),
    "plan of an empty object": _plan_with(b"{}"),
    "plan of another version": _plan_with(b'{"request": {"kind": "pair"}, "scenes_left_out": {}}'),
    "plan is a list": _plan_with(b"[]"),
    "plan is a folder": lambda out: ((out / "plan.parquet").unlink(), (out / "plan.parquet").mkdir()),
    "manifest is empty": lambda out: (out / "manifest.json").write_bytes(b""),
    "manifest is a list": lambda out: (out / "manifest.json").write_text("[]"),
    "manifest is a page": lambda out: (out / "manifest.json").write_text("<html></html>"),
    "manifest of the future": lambda out: (out / "manifest.json").write_text('{"format_version": 99}'),
    "manifest of another data set": lambda out: (
        shutil.copy(out.parent / "whole.json", out / "manifest.json"),
        _rewrite(out / "manifest.json", lambda one: one.update(plan_fingerprint="0" * 64)),
    ),
    "first receipt is empty": lambda out: (out / "receipts/u00000.json").write_bytes(b""),
    "first receipt is half": lambda out: (out / "receipts/u00000.json").write_text('{"unit_id": "u0'),
    "first receipt is a list": lambda out: (out / "receipts/u00000.json").write_text("[]"),
    "first receipt is of another plan": lambda out: _rewrite(
        out / "receipts/u00000.json", lambda one: one.update(plan_fingerprint="0" * 64)
    ),
    "receipts is a file": lambda out: (shutil.rmtree(out / "receipts"), (out / "receipts").write_text("x")),
    "cube is a file": lambda out: (shutil.rmtree(out / "cube.zarr"), (out / "cube.zarr").write_text("x")),
    "cube's metadata is damaged": lambda out: (out / "cube.zarr/zarr.json").write_text("{"),
    "cube is of another plan": lambda out: _rewrite(
        out / "cube.zarr/s2/zarr.json", lambda one: one.update(shape=[16, 12, 30, 30])
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_data_sets(*, name: str, refused: Run, tiny: Tiny, half: Path, tmp_path: Path) -> None:
    shutil.copytree(half, tmp_path / "out")
    shutil.copy(half.parent / "manifest.json", tmp_path / "whole.json")
    DAMAGE[name](tmp_path / "out")
    refused("build-shards", *_flags(tiny, tmp_path), code=69 if name == "cube is a file" else 2)


@pytest.mark.parametrize("content", ["", "[]", '{"unit_id": "u00001"}', "<html></html>"])
def test_a_damaged_receipt_of_a_later_unit_is_told_with_what_to_do(
    *, content: str, ingest: Callable[..., tuple[object, str]], tiny: Tiny, half: Path, tmp_path: Path
) -> None:
    """Found at the end only: reading all of them at the start would cost a large build its time."""
    out = tmp_path / "out"
    shutil.copytree(half, out)
    (out / "receipts/u00001.json").write_text(content)
    code, said = ingest("build-shards", *_flags(tiny, tmp_path))
    assert code == 2
    assert "Remove it" in said[said.index("receipts/u00001.json") :]
    assert not (out / "manifest.json").exists()
    (out / "receipts/u00001.json").unlink()
    assert ingest("build-shards", *_flags(tiny, tmp_path))[0] == 0
    assert (out / "manifest.json").exists()


def test_there_are_a_hundred() -> None:
    assert len(FLAGS) + 5 + 2 * len(DOCUMENTS) + len(ITEMS) + len(TABLES) + len(DAMAGE) >= 100
