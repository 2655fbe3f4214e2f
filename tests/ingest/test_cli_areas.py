"""Areas, grids and samplers that cannot be: exit code 2, one message, nothing written."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.transform import from_origin

from ingest import cli

pytestmark = pytest.mark.ingest

RING = [[15.0, 47.8], [15.1, 47.8], [15.1, 47.9], [15.0, 47.9], [15.0, 47.8]]
POLYGON = {"type": "Polygon", "coordinates": [RING]}


def _polygon(*corners: list[float]) -> str:
    return json.dumps({"type": "Polygon", "coordinates": [[*corners, corners[0]]]})


TEXTS = {
    "points.csv": "name,lon,lat\nLunz,15.01,47.85\nMelk,15.33,48.22\n",
    "empty.csv": "",
    "header.csv": "lon,lat,name\n",
    "words.csv": "here,there\nup,down\n",
    "swapped.csv": "lat,lon\n147.85,15.01\n",
    "gap.csv": "lon,lat\n15,48\n15,\n",
    "pole.csv": "10,85\n",
    "area.geojson": json.dumps(POLYGON),
    "bowtie.geojson": _polygon(RING[0], RING[2], RING[1], RING[3]),
    "crossing.geojson": _polygon([179, 0], [-179, 1], [-179, 0], [179, 1]),
    "polar.geojson": _polygon([-170, 70], [-50, 70], [70, 70], [175, 70]),
    "metres.geojson": _polygon([5e5, 5e6], [6e5, 5e6], [6e5, 6e6]),
    "line.geojson": json.dumps({"type": "LineString", "coordinates": RING}),
    "crs.geojson": json.dumps({**POLYGON, "crs": {"type": "name", "properties": {"name": "EPSG:999999"}}}),
    "text.shp": "not a shapefile",
    "text.parquet": "not parquet",
    "text.tif": "not a raster",
}  # fmt: skip
SAMPLED = ("--sample", "2")
MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "box too wide": (("--aoi=-170,47,-175,48",), "at most 180 degrees wide"),
    "box upside down": (("--aoi", "15,48,16,47"), "south below north"),
    "box of three": (("--aoi", "15,48,16"), "3 numbers"),
    "box without width": (("--aoi", "15,48,15,49"), "west must be below east"),
    "box beyond a turn": (("--aoi", "15,48,560,49"), "not degrees"),
    "box at the north pole": (("--aoi", "15,83,16,85"), "-80 to 84"),
    "box at the south pole": (("--aoi", "15,-90,16,-79"), "-80 to 84"),
    "nothing": (("--aoi", ""), "neither a file"),
    "no such file": (("--aoi", "nowhere.gpkg"), "neither a file"),
    "a folder": (("--aoi", "."), "cannot be read"),
    "tile without row": (("--aoi", "mgrs:33TW"), "as 33TWL"),
    "tile of no zone": (("--aoi", "mgrs:61TWL"), "no zone 61T"),
    "tile of no band": (("--aoi", "mgrs:33IWL"), "no zone 33I"),
    "tile in the wrong band": (("--aoi", "mgrs:33UWL"), "does not lie in 33U"),
    "tile with a wrong column": (("--aoi", "mgrs:33TAL"), "columns of zone 33"),
    "one wrong tile of two": (("--aoi", "mgrs:33TWL,33TWA"), "33TWA"),
    "no tile": (("--aoi", "mgrs:"), "as 33TWL"),
    "crosses itself": (("--aoi", "bowtie.geojson"), "Self-intersection"),
    "crosses itself at 180": (("--aoi", "crossing.geojson"), "Self-intersection"),
    "round the pole": (("--aoi", "polar.geojson"), "round a pole"),
    "metres": (("--aoi", "metres.geojson"), "not degrees"),
    "a line": (("--aoi", "line.geojson"), "is a LineString"),
    "unknown crs": (("--aoi", "crs.geojson"), "not GeoJSON with geometries"),
    "no shapefile": (("--aoi", "text.shp"), "as a shapefile"),
    "no parquet": (("--aoi", "text.parquet"), "as GeoParquet"),
    "parquet without geometry": (("--aoi", "plain.parquet"), "as GeoParquet"),
    "points without size": (("--aoi", "points.csv"), "--around 5km"),
    "points on the scenes' grid": (("--aoi", "points.csv", "--grid", "scene"), "--around 5km"),
    "list of nothing": (("--aoi", "empty.csv", "--around", "5km"), "holds no place"),
    "list of a header": (("--aoi", "header.csv", "--around", "5km"), "no place"),
    "list of words": (("--aoi", "words.csv", "--around", "5km"), "neither numbers nor a header"),
    "list of swapped columns": (("--aoi", "swapped.csv", "--around", "5km"), "Longitude comes first"),
    "list with a gap": (("--aoi", "gap.csv", "--around", "5km"), "line 3"),
    "point at the pole": (("--aoi", "pole.csv", "--around", "5km"), "-80 to 84"),
    "no such place": (("--aoi", "points.csv#Wien", "--around", "5km"), "no place of that name"),
    "no such file of places": (("--aoi", "nowhere.csv#Wien"), "neither a file"),
    "around without unit": (("--aoi", "points.csv", "--around", "5"), "--around '5'"),
    "around nothing": (("--aoi", "points.csv", "--around", "0km"), "has a radius"),
    "around in miles": (("--aoi", "points.csv", "--around", "5mi"), "metres or kilometres"),
    "too many cells": (("--aoi=-180,-80,180,84",), "Draw some of them with --sample"),
    "block of another size": (("--grid", "blocks", "--block-px", "256"), "512 or 1024"),
    "block of another grid": (("--block-px", "512"), "for --grid blocks"),
    "chip larger than a block": (("--grid", "blocks", "--block-px", "512", "--chip-px", "600"), "no such chip fits"),
    "guard without unit": (("--guard", "5"), "--guard '5'"),
    "negative guard": (("--guard=-5km",), "--guard '-5km'"),
    "guard too wide": (("--guard", "500km"), "at most 200km"),
    "sampler without number": (("--sampler", "grid"), "add --sample N"),
    "weights without number": (("--weights", "area.geojson"), "add --sample N"),
    "sample of nothing": (("--sample", "0"), "--sample 0"),
    "negative sample": (("--sample=-3",), "--sample -3"),
    "sample of too many": (("--sample", "99999999"), "5,000,000"),
    "more than there are": (("--sample", "5000"), "only 6 cells"),
    "land without weights": ((*SAMPLED, "--sampler", "land"), "needs --weights"),
    "classes without raster": ((*SAMPLED, "--sampler", "classes"), "needs --weights"),
    "points without spread": ((*SAMPLED, "--sampler", "points", "--weights", "points.csv"), "needs --spread"),
    "points without anything": ((*SAMPLED, "--sampler", "points"), "needs --weights and --spread"),
    "grid with weights": ((*SAMPLED, "--weights", "area.geojson"), "takes no --weights"),
    "land with a spread": ((*SAMPLED, "--sampler", "land", "--weights", "x", "--spread", "5km"), "takes no --spread"),
    "land with shares": ((*SAMPLED, "--sampler", "land", "--weights", "x", "--shares", "1=1"), "takes no --shares"),
    "spread of nothing": ((*SAMPLED, "--sampler", "points", "--weights", "points.csv", "--spread", "0km"), "above 0"),
    "spread of a planet": ((*SAMPLED, "--sampler", "points", "--weights", "x", "--spread", "9000km"), "at most 1000km"),
    "shares in words": ((*SAMPLED, "--sampler", "classes", "--weights", "x", "--shares", "half"), "as 1=0.5"),
    "share of nothing": ((*SAMPLED, "--sampler", "classes", "--weights", "x", "--shares", "1=0"), "as 1=0.5"),
    "share given twice": ((*SAMPLED, "--sampler", "classes", "--weights", "x", "--shares", "1=1,1=2"), "as 1=0.5"),
    "negative share": ((*SAMPLED, "--sampler", "classes", "--weights", "x", "--shares", "1=-1"), "as 1=0.5"),
    "blocks of the lattice": ((*SAMPLED, "--sampler", "blocks"), "Add that grid"),
    "sample of areas": ((*SAMPLED, "--grid", "aoi"), "--grid aoi has none"),
    "sample of scenes": ((*SAMPLED, "--grid", "scene"), "--grid scene has none"),
    "land that is not there": ((*SAMPLED, "--sampler", "land", "--weights", "nowhere.geojson"), "is not there"),
    "land of lines": ((*SAMPLED, "--sampler", "land", "--weights", "line.geojson"), "land is polygons"),
    "land in text": ((*SAMPLED, "--sampler", "land", "--weights", "text.tif"), "as a raster"),
    "classes in text": ((*SAMPLED, "--sampler", "classes", "--weights", "text.tif"), "as a raster"),
    "classes of another place": ((*SAMPLED, "--sampler", "classes", "--weights", "far.tif"), "as a raster in the area"),
    "points of polygons": ((*SAMPLED, "--sampler", "points", "--weights", "area.geojson", "--spread", "1km"), "points"),
    "points far away": ((*SAMPLED, "--sampler", "points", "--weights", "far.csv", "--spread", "1km"), "only 0 cells"),
}  # fmt: skip


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are wrong in one way each, and of a few that are right."""
    folder = tmp_path_factory.mktemp("files")
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    (folder / "far.csv").write_text("100,10\n")
    pq.write_table(pa.table({"a": [1]}), folder / "plain.parquet")
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": 4326, "height": 2, "width": 2}
    with rasterio.open(folder / "far.tif", "w", transform=from_origin(100, 10, 1, 1), **profile) as file:
        file.write(np.ones((2, 2), "u1"), 1)
    return folder


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


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_message(
    *, name: str, run: Any, tiny: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags, match = MISTAKES[name]
    before = sorted(files.iterdir())
    monkeypatch.chdir(files)
    monkeypatch.setattr("ingest.sampling.MOST_BATCHES", 1)
    given = () if any(flag.startswith("--aoi") for flag in flags) else ("--aoi", tiny.aoi)
    chip = () if "--chip-px" in flags else ("--chip-px", "24")
    shared = ("--catalog", tiny.root, "--out", tmp_path / "out", "--workers", "0")
    code, out, err = run("build-shards", *given, *flags, *chip, *shared)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert err.startswith("ingest: ")
    assert re.search(match, err), err
    assert not (tmp_path / "out").exists()
    assert sorted(files.iterdir()) == before


RIGHT: dict[str, tuple[str, ...]] = {
    "points": ("--aoi", "points.csv#Lunz", "--around", "1km"),
    "a chip on a point": ("--aoi", "points.csv#Lunz", "--grid", "aoi"),
    "blocks": ("--grid", "blocks", "--block-px", "512"),
    "some cells": ("--sample", "2", "--seed", "3"),
    "some land": ("--sample", "2", "--sampler", "land", "--weights", "area.geojson"),
    "round a point": ("--sample", "2", "--sampler", "points", "--weights", "points.csv", "--spread", "1km"),
    "some blocks": ("--sample", "2", "--sampler", "blocks", "--grid", "blocks"),
    "a guard": ("--val", "50", "--guard", "0.1km"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_planned(
    *, name: str, run: Any, tiny: Any, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    given = () if "--aoi" in RIGHT[name] else ("--aoi", tiny.aoi)
    val = () if "--val" in RIGHT[name] else ("--val", "0")
    code, out, err = run("plan", *given, *RIGHT[name], *val, "--catalog", tiny.root, "--chip-px", "24", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["chips"] > 0
    assert facts["leakage"]["train cells that overlap val ground"] == 0
    if "--sample" in RIGHT[name]:
        assert facts["chips"] == 6  # two cells on three dates
