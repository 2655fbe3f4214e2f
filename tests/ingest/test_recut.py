"""Pieces are the pixels of their parents, and another codec gives what a build with that codec gives."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pytest

from ingest.areas.grid import Cell, utm_epsg
from ingest.build import build
from ingest.care.recut import _judge, cut, derive, recut
from ingest.care.samples import open_set
from ingest.care.verify import verify
from ingest.planner import make_plan
from ingest.request import Request
from pipeline import record
from pipeline.errors import UsageError
from pipeline.sample import SampleMeta, StackSample, arrays, validate
from pipeline.store import Store

pytestmark = pytest.mark.ingest
Ask = Callable[..., Request]
STACK = {"kind": "stack", "s1": (), "max_gap_hours": 0.0, "frames": 2, "min_gap_hours": 24.0}


@pytest.fixture(scope="module")
def asked(make_request: Ask) -> Request:
    return make_request(labels=("labels",), chip_px=30, max_nodata_percent=5.0)


@pytest.fixture(scope="module")
def whole(asked: Request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parents") / "out"
    build(asked, str(out), workers=0)
    return out


def samples(out: Path) -> dict[str, Any]:
    data = open_set(Store.at(str(out)))
    return {row["key"]: (row, data.read(row)) for row in data.rows()}


@pytest.mark.parametrize("kind", ["pair", "stack"])
def test_another_codec_is_what_a_build_makes(kind: str, make_request: Ask, tmp_path: Path) -> None:
    changes: dict[str, Any] = STACK if kind == "stack" else {"labels": ("labels",)}
    build(make_request(**changes), str(tmp_path / "b2"), workers=0)
    build(make_request(**changes, codec="npy"), str(tmp_path / "npy"), workers=0)
    recut(str(tmp_path / "b2"), str(tmp_path / "cut"), codec="npy")
    found = harness.tree(tmp_path / "cut")
    derived = found.pop("derived_from.json")
    assert derived
    assert found == harness.tree(tmp_path / "npy")


def test_pieces_are_the_pixels_of_their_parents(whole: Path, asked: Request, tmp_path: Path) -> None:
    built = recut(str(whole), str(tmp_path / "cut"), chip_px=12, threads=2)
    parents, pieces = samples(whole), samples(tmp_path / "cut")
    assert built.counts["accepted"] == len(pieces)
    assert sum(built.counts.values()) == 4 * len(make_plan(asked).tasks)
    assert {"s2 nodata", "cloud"} <= set(built.counts)
    by_time = {(one.meta.cell_id, one.meta.acquired): (row, one) for row, one in parents.values()}
    for row, piece in pieces.values():
        validate(piece)
        assert row["key"].startswith(f"32633-x{round(piece.meta.transform[2]):07d}-y")
        left, top = piece.meta.transform[2], piece.meta.transform[5]
        (parent_row, parent), *others = [
            (above, one)
            for above, one in by_time.values()
            if one.meta.acquired == piece.meta.acquired
            and 0 <= left - one.meta.transform[2] < 300
            and 0 <= one.meta.transform[5] - top < 300
        ]
        assert not others
        y, x = int(parent.meta.transform[5] - top) // 10, int(left - parent.meta.transform[2]) // 10
        assert {y, x} <= {0, 12}
        for name, array in arrays(piece).items():
            np.testing.assert_array_equal(array, arrays(parent)[name][..., y : y + 12, x : x + 12])
        assert (row["split"], row["group"], row["time"]) == tuple(
            parent_row[name] for name in ("split", "group", "time")
        )
        assert piece.meta.scene_ids == parent.meta.scene_ids
        assert piece.meta.cloud_fraction == ((piece.mask & 4) > 0).sum() / max(1, ((piece.mask & 1) == 0).sum())
        assert piece.meta.valid_fraction == ((piece.mask & 3) == 0).mean()


def test_what_comes_out_is_whole_and_says_where_from(whole: Path, tmp_path: Path) -> None:
    for name, chips in (("halves", 15), ("one", 24), ("tiny", 8)):
        out = tmp_path / name
        recut(str(whole), str(out), chip_px=chips, codec="npy")
        assert verify(Store.at(str(out)), deep=name == "halves").findings == ()
        derived = Store.at(str(out)).read("derived_from.json")
        assert b'"chip_px":30' in derived
        assert record.dumps(str(whole)) in derived


def test_pieces_of_pieces(whole: Path, tmp_path: Path) -> None:
    recut(str(whole), str(tmp_path / "a"), chip_px=24)
    recut(str(tmp_path / "a"), str(tmp_path / "b"), chip_px=12)
    recut(str(whole), str(tmp_path / "c"), chip_px=12)
    direct = {key: one for key, (_, one) in samples(tmp_path / "c").items()}
    for key, (_, one) in samples(tmp_path / "b").items():
        np.testing.assert_array_equal(one.s2, direct[key].s2)


def test_bytes_do_not_depend_on_threads_or_kills(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recut(str(whole), str(tmp_path / "one"), chip_px=12, threads=1)
    recut(str(whole), str(tmp_path / "many"), chip_px=12, threads=3)
    wanted = harness.tree(tmp_path / "one")
    assert harness.tree(tmp_path / "many") == wanted
    shutil.rmtree(tmp_path / "many" / "receipts")
    (tmp_path / "many" / "manifest.json").unlink()
    recut(str(whole), str(tmp_path / "many"), chip_px=12)
    assert harness.tree(tmp_path / "many") == wanted
    recut(str(whole), str(tmp_path / "many"), chip_px=12)
    with pytest.raises(UsageError, match="another data set"):
        recut(str(whole), str(tmp_path / "many"), chip_px=15)


@pytest.mark.parametrize("missing", ["plan.parquet", "cube.zarr", "manifest.json"])
def test_what_is_missing_is_one_message(whole: Path, missing: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    shutil.rmtree(copy / missing) if (copy / missing).is_dir() else (copy / missing).unlink()
    with pytest.raises(UsageError, match=missing):
        recut(str(copy), str(tmp_path / "out"), chip_px=12)
    assert not (tmp_path / "out").exists()


def test_chips_of_nothing_are_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--chip-px 0"):
        recut(str(whole), str(tmp_path / "out"), chip_px=0)


def test_larger_chips_are_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--chip-px 31: the chips have 30"):
        recut(str(whole), str(tmp_path / "out"), chip_px=31)


RULE = {
    (264, 120): [12, 132], (264, 132): [0, 132], (264, 96): [36, 132], (128, 120): [0], (264, 264): [0],
    (30, 13): [0, 13], (100, 17): [6, 23, 40, 57, 74],
}  # fmt: skip


@pytest.mark.parametrize("sizes", RULE)
def test_the_rule(make_request: Ask, make_cell: Callable[..., Cell], sizes: tuple[int, int]) -> None:
    (size, chip), firsts = sizes, RULE[sizes]
    task = replace(make_plan(make_request()).tasks[0], cell=make_cell(size_px=size))
    pieces = list(cut(task, chip))
    assert [(row, col) for row, col, _ in pieces] == [(row, col) for row in firsts for col in firsts]
    assert len({piece.key for _, _, piece in pieces}) == len(pieces)
    for row, col, piece in pieces:
        assert (piece.cell.left_m, piece.cell.top_m) == (task.cell.left_m + 10 * col, task.cell.top_m - 10 * row)
        assert utm_epsg(*piece.cell.center_lonlat) == piece.cell.epsg
        assert piece.key.rsplit("-", 2)[1:] == task.key.rsplit("-", 2)[1:]


def test_the_derived_plan_is_that_of_a_build_where_nothing_is_cut(make_request: Ask) -> None:
    plan = make_plan(make_request())
    assert derive(plan, chip_px=24, codec="b2") == plan
    assert derive(plan, chip_px=24, codec="npy") == make_plan(make_request(codec="npy"))


def test_a_whole_scene_s_cloud_stays_what_it_is(asked: Request, make_meta: Callable[..., SampleMeta]) -> None:
    """Where no classification was seen the mask has no cloud, and the piece cannot know better than its parent."""
    clear = np.zeros((30, 30), np.uint8)
    unseen = _judge(clear[:12, :12], clear, make_meta(cloud_fraction=0.15), asked)
    assert unseen.cloud_fraction == 0.15
    assert _judge(clear[:12, :12], clear, make_meta(cloud_fraction=None), asked).cloud_fraction is None
    clouded = clear.copy()
    clouded[:12, :6] = 4
    seen = _judge(clouded[:12, :12], clouded, make_meta(cloud_fraction=72 / 900), asked)
    assert (seen.cloud_fraction, seen.reason) == (0.5, "cloud")


def test_stacks_are_cut_on_all_dates(make_request: Ask, tmp_path: Path) -> None:
    build(make_request(**STACK, s2_bands=("B02", "B04")), str(tmp_path / "whole"), workers=0)
    recut(str(tmp_path / "whole"), str(tmp_path / "cut"), chip_px=12)
    assert verify(Store.at(str(tmp_path / "cut")), deep=True).findings == ()
    pieces = samples(tmp_path / "cut")
    assert pieces
    for _, piece in pieces.values():
        assert isinstance(piece, StackSample)
        assert piece.s2.shape == (2, 2, 12, 12)
        assert piece.meta.cloud_fraction == np.mean([((mask & 4) > 0).mean() for mask in piece.mask])
