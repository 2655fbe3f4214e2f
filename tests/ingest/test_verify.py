"""Every kind of object is damaged in every way, and each time it is found; a whole data set is found whole."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import pytest

from ingest.build import build
from ingest.care.verify import Verdict, verify
from ingest.request import Request
from pipeline import manifest, record
from pipeline.errors import UsageError, VersionMismatch
from pipeline.manifest import FORMAT_VERSION
from pipeline.store import Store

pytestmark = pytest.mark.ingest
Ask = Callable[..., Request]
SHARD, OTHER = "shards/train/u00000-0000.tar", "shards/train/u00001-0000.tar"


@pytest.fixture(scope="module")
def asked(make_request: Ask) -> Request:
    return make_request(labels=("labels",))


@pytest.fixture(scope="module")
def whole(asked: Request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    build(asked, str(out), workers=0)
    return out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


def check(out: Path, *, deep: bool = True) -> Verdict:
    return verify(Store.at(str(out)), deep=deep, threads=2)


def places(verdict: Verdict) -> set[str]:
    """Objects that are said to be wrong."""
    return {finding.where.split(" ")[0] for finding in verdict.findings}


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_data_set_is_whole(whole: Path, *, deep: bool) -> None:
    before = harness.tree(whole)
    verdict = check(whole, deep=deep)
    assert verdict.findings == ()
    assert (verdict.units, verdict.shards, verdict.samples) == (3, 3, 13)
    assert verdict.decoded == (13 if deep else 3)
    assert harness.tree(whole) == before


@pytest.mark.parametrize("kind", ["stack", "val", "npy", "none accepted", "memory"])
def test_other_data_sets_are_whole_too(kind: str, make_request: Ask, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "stack": {"kind": "stack", "s1": (), "max_gap_hours": 0.0, "frames": 2, "min_gap_hours": 24.0},
        "val": {"val_percent": 100.0},
        "npy": {"codec": "npy"},
        "none accepted": {"max_cloud_percent": 0.0, "max_nodata_percent": 0.0},
        "memory": {},
    }
    out = "memory://verified" if kind == "memory" else str(tmp_path / "out")
    build(make_request(**changes[kind]), out, workers=0)
    assert verify(Store.at(out), deep=True).findings == ()


def test_it_needs_no_plan(out: Path) -> None:
    (out / "plan.parquet").unlink()
    verdict = check(out)
    assert (verdict.findings, verdict.has_plan) == ((), False)
    (out / "receipts" / "u00002.json").unlink()
    assert places(check(out)) == {"receipts/u00002.json"}


OBJECTS = ["index.parquet", "stats.json", "chips.parquet", "croissant.json", "receipts/u00001.json", SHARD]


@pytest.mark.parametrize("name", OBJECTS)
def test_what_is_removed_is_missed(out: Path, name: str) -> None:
    (out / name).unlink()
    assert places(check(out)) == {name}


@pytest.mark.parametrize("name", [*OBJECTS, "manifest.json", "plan.parquet", "cube.zarr/s2/zarr.json"])
def test_what_is_cut_off_is_found(out: Path, name: str) -> None:
    data = (out / name).read_bytes()
    for share in (0.0, 0.5, 0.99):
        (out / name).write_bytes(data[: int(share * len(data))])
        assert places(check(out, deep=False)) & {name, "cube.zarr"}


@pytest.mark.parametrize("name", ["index.parquet", "stats.json", "croissant.json", "receipts/u00001.json", SHARD])
def test_one_flipped_bit_is_found(out: Path, name: str) -> None:
    whole = (out / name).read_bytes()
    for seed in range(6):
        data = bytearray(whole)
        data[seed * (len(data) - 1) // 5] ^= 1 << seed
        (out / name).write_bytes(data)
        assert places(check(out, deep=False)) & {name, "stats.json"}, seed
    (out / name).write_bytes(whole)
    assert check(out, deep=False).findings == ()


@pytest.mark.parametrize("array", ["s2", "s1", "mask", "label"])
def test_flipped_bits_of_the_cube_are_found(out: Path, array: str) -> None:
    path = next(path for path in (out / "cube.zarr" / array / "c").rglob("*") if path.is_file())
    whole = path.read_bytes()
    for share in (0.05, 0.95):
        data = bytearray(whole)
        data[int(share * len(data))] ^= 0x10
        path.write_bytes(data)
        assert f"cube.zarr/{array}" in places(check(out))


def test_a_missing_piece_of_the_cube_is_found(out: Path) -> None:
    shutil.rmtree(out / "cube.zarr" / "s1" / "c" / "1")
    assert places(check(out, deep=False)) == {"cube.zarr/s1/c/1"}
    shutil.rmtree(out / "cube.zarr")
    assert places(check(out, deep=False)) == {"cube.zarr"}


def test_pixels_of_another_row_are_found(out: Path) -> None:
    """Whole and valid bytes, of the wrong unit."""
    swap(*(next((out / "cube.zarr" / "s2" / "c" / str(number)).rglob("0/0/0")) for number in (0, 1)))
    assert places(check(out, deep=False)) == set()
    assert places(check(out)) == {"cube.zarr/s2"}


def swap(a: Path, b: Path) -> None:
    left, right = a.read_bytes(), b.read_bytes()
    a.write_bytes(right)
    b.write_bytes(left)


def test_swapped_objects_are_found(out: Path) -> None:
    swap(out / SHARD, out / OTHER)
    swap(out / "receipts" / "u00001.json", out / "receipts" / "u00002.json")
    assert {SHARD, OTHER, "receipts/u00001.json", "receipts/u00002.json"} <= places(check(out, deep=False))


def test_a_shard_that_was_made_to_fit_is_found(out: Path) -> None:
    """Someone also wrote its size and hash into the manifest: index and receipt still know better."""
    data = (out / OTHER).read_bytes()
    (out / SHARD).write_bytes(data)
    known = manifest.load(Store.at(str(out)))
    forged = replace(known.shards[0], bytes=len(data), sha256=manifest.sha256(data))
    (out / "manifest.json").write_bytes(record.dumps(replace(known, shards=(forged, *known.shards[1:]))))
    assert {SHARD, "receipts/u00000.json"} <= places(check(out, deep=False))


def test_strangers_are_found(out: Path) -> None:
    shutil.copy(out / SHARD, out / "shards" / "train" / "u00077-0000.tar")
    shutil.copy(out / "receipts" / "u00000.json", out / "receipts" / "u00077.json")
    assert places(check(out, deep=False)) == {"shards/train/u00077-0000.tar", "receipts/u00077.json"}


@pytest.mark.parametrize(
    "field", ["codec", "chip_px", "counts", "plan_fingerprint", "kind", "s2_bands", "members", "shards"]
)
def test_a_manifest_that_says_something_else_is_found(out: Path, field: str) -> None:
    known = manifest.load(Store.at(str(out)))
    other: Any = {
        "codec": "npy",
        "chip_px": 25,
        "counts": {"accepted": 13},
        "plan_fingerprint": "0" * 64,
        "kind": "stack",
    }
    value = other.get(field) or getattr(known, field)[1:]
    (out / "manifest.json").write_bytes(record.dumps(replace(known, **{field: value})))
    assert check(out, deep=field == "kind").findings


def test_statistics_of_other_pixels_are_found(out: Path) -> None:
    """Receipts and the sum of them agree with each other, and not with the samples."""
    for name in ("stats.json", "receipts/u00000.json", "receipts/u00001.json", "receipts/u00002.json"):
        text = json.loads((out / name).read_text())
        text["s1"]["maximum"] = [99.0, 99.0]
        (out / name).write_bytes(json.dumps(text).encode())
    assert places(check(out, deep=False)) == set()
    assert places(check(out)) == {f"receipts/u{number:05d}.json" for number in range(3)}


@pytest.mark.parametrize("column", ["reason", "cell_id", "cloud_fraction", "geometry"])
def test_a_table_of_chips_that_says_something_else_is_found(out: Path, column: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(out / "chips.parquet")
    turned = table.set_column(table.column_names.index(column), column, table[column].take(list(range(17, -1, -1))))
    parquet.write_table(turned, out / "chips.parquet")
    assert places(check(out, deep=False)) == {"chips.parquet", "croissant.json"}


def test_the_remedy_of_a_damaged_unit_mends_it(whole: Path, out: Path, asked: Request) -> None:
    (out / SHARD).write_bytes(b"damaged")
    finding = check(out).findings[0]
    assert "remove receipts/u00000.json and manifest.json and run the same build-shards again" in finding.remedy
    (out / "receipts" / "u00000.json").unlink()
    (out / "manifest.json").unlink()
    build(asked, str(out), workers=0)
    assert harness.tree(out) == harness.tree(whole)


def test_what_is_no_finished_data_set_is_a_mistake(out: Path) -> None:
    (out / "foreign.json").write_text("{}")
    with pytest.raises(UsageError, match=r"train/index\.py"):
        check(out)
    (out / "foreign.json").unlink()
    text = (out / "manifest.json").read_text()
    (out / "manifest.json").write_text(text.replace(f'"format_version":{FORMAT_VERSION}', '"format_version":7'))
    with pytest.raises(VersionMismatch):
        check(out)
    (out / "manifest.json").unlink()
    with pytest.raises(UsageError, match="not a finished data set"):
        check(out)
