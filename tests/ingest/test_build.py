"""The stage: once, twice, with other hands, and with something broken."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import pytest

from ingest import build as stage
from ingest import planfile, units
from ingest.build import UnitDone, build, explain, open_plan
from ingest.pixels import raster
from ingest.plan import IngestPlan
from ingest.planner import make_plan
from ingest.request import Request
from ingest.scenes.scene import Scene
from pipeline import manifest
from pipeline.errors import ReadError, UnitsFailed, UsageError
from pipeline.store import Store

pytestmark = pytest.mark.ingest
Ask = Callable[..., Request]


@pytest.fixture(scope="module")
def calm(make_request: Ask, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every file of an undisturbed build."""
    out = tmp_path_factory.mktemp("calm")
    build(make_request(), str(out), workers=0)
    return harness.tree(out)


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}


def test_what_lies_in_out(calm: dict[str, str]) -> None:
    top = {name.partition("/")[0] for name in calm}
    assert top == {
        "plan.parquet",
        "receipts",
        "shards",
        "cube.zarr",
        "index.parquet",
        "chips.parquet",
        "croissant.json",
        "stats.json",
        "manifest.json",
    }
    assert {name for name in calm if name.startswith("receipts/")} == {f"receipts/u{i:05d}.json" for i in range(3)}


def test_a_second_run_does_nothing(make_request: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(make_request(), str(tmp_path), workers=0)
    before = _stamps(tmp_path)
    monkeypatch.setattr(stage, "make_plan", None)  # the catalog is asked once
    monkeypatch.setattr(stage, "assemble", None)
    assert build(make_request(), str(tmp_path), workers=0) == first
    assert _stamps(tmp_path) == before


def test_the_same_request_gives_the_same_bytes(make_request: Ask, tmp_path: Path, calm: dict[str, str]) -> None:
    build(make_request(), str(tmp_path), workers=0)
    assert harness.tree(tmp_path) == calm


def test_memory_gets_the_bytes_of_a_disk(make_request: Ask, calm: dict[str, str]) -> None:
    build(make_request(), "memory://build-parity", workers=0)
    store = Store.at("memory://build-parity")
    for name, digest in calm.items():
        if not name.startswith("cube.zarr"):
            assert manifest.sha256(store.read(name)) == digest, name


def test_threads_of_dask_write_into_memory(make_request: Ask, calm: dict[str, str]) -> None:
    build(make_request(), "memory://build-threads", workers=1)
    assert manifest.sha256(Store.at("memory://build-threads").read("manifest.json")) == calm["manifest.json"]


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_workers(make_request: Ask, tmp_path: Path, calm: dict[str, str]) -> None:
    for workers in (1, 2):
        out = tmp_path / str(workers)
        build(make_request(), str(out), workers=workers)
        assert harness.tree(out) == calm


def test_units_in_another_order_give_the_same_bytes(
    make_request: Ask, tmp_path: Path, calm: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = units._here
    monkeypatch.setattr(units, "_here", lambda todo, work: here(todo[::-1], work))
    build(make_request(), str(tmp_path), workers=0)
    assert harness.tree(tmp_path) == calm


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 1}, "seed"),
        ({"codec": "npy"}, "codec"),
        ({"chip_px": 30}, "chip_px"),
        ({"val_percent": 5.0}, "val_percent"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_request_in_the_same_out_is_refused(
    *, changes: dict[str, Any], field: str, finished: bool, make_request: Ask, tmp_path: Path
) -> None:
    if finished:
        build(make_request(), str(tmp_path), workers=0)
    else:
        open_plan(Store.at(tmp_path), make_request())
    before = _stamps(tmp_path)
    with pytest.raises(UsageError, match=rf"another request \({field}\)"):
        build(make_request(**changes), str(tmp_path), workers=0)
    assert _stamps(tmp_path) == before


@pytest.mark.parametrize("finished", [True, False])
def test_another_request_is_refused_when_the_plan_is_gone(
    finished: bool, make_request: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message for a damaged plan says to remove it: what another plan made must not pass for this one's."""
    build(make_request(), str(tmp_path), workers=0)
    (tmp_path / "plan.parquet").unlink()
    if not finished:
        (tmp_path / "manifest.json").unlink()
    with pytest.raises(UsageError):
        build(make_request(chip_px=30), str(tmp_path), workers=0)


def test_the_same_request_goes_on_when_the_plan_is_gone(
    make_request: Ask, tmp_path: Path, calm: dict[str, str]
) -> None:
    build(make_request(), str(tmp_path), workers=0)
    for name in ("plan.parquet", "manifest.json", "receipts/u00001.json"):
        (tmp_path / name).unlink()
    build(make_request(), str(tmp_path), workers=0)
    assert harness.tree(tmp_path) == calm


def test_no_pair_is_a_usage_error_that_says_why_and_writes_nothing(make_request: Ask, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no chip can be made: .*gap 6\.0 h"):
        build(make_request(max_gap_hours=1.0), str(tmp_path / "out"), workers=0)
    assert not (tmp_path / "out").exists()


def test_a_plan_that_was_kept_is_followed(make_request: Ask, tmp_path: Path, calm: dict[str, str]) -> None:
    kept = open_plan(Store.at(tmp_path), make_request())
    assert open_plan(Store.at(tmp_path), make_request()) == kept
    build(make_request(), str(tmp_path), workers=0)
    assert harness.tree(tmp_path) == calm


class _Told:
    def __init__(self) -> None:
        self.plans: list[tuple[int, int]] = []
        self.done: list[UnitDone] = []

    def planned(self, plan: IngestPlan, finished: int) -> None:
        self.plans.append((len(plan.units), finished))

    def unit_done(self, done: UnitDone) -> None:
        self.done.append(done)

    def unit_failed(self, unit_id: str, error: Exception) -> None:
        raise AssertionError(unit_id) from error


def test_progress_is_told(make_request: Ask, tmp_path: Path) -> None:
    told = _Told()
    built = build(make_request(), str(tmp_path), workers=0, progress=told)
    assert told.plans == [(3, 0)]
    assert [done.unit_id for done in told.done] == ["u00000", "u00001", "u00002"]
    assert sum((done.counts for done in told.done), Counter()) == built.counts
    assert sum(done.bytes for done in told.done) == sum(entry.bytes for entry in built.shards)


@pytest.fixture
def broken(tiny: Any, tmp_path: Path) -> tuple[Path, Callable[[], None]]:
    """A copy of the tiny Earth with one truncated asset, and what mends it."""
    root = tmp_path / "earth"
    shutil.copytree(tiny.root, root)
    path = root / "sentinel-2-l2a" / "S2-1" / "B05.tif"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    return root, lambda: path.write_bytes(data) and None  # type: ignore[func-returns-value]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_damaged_asset_rejects_its_chips_and_no_others(
    workers: int, broken: tuple[Path, Callable[[], None]], make_request: Ask, tmp_path: Path
) -> None:
    """Another run cannot help a file that is damaged: the data set is finished without it, and says so."""
    request, out = make_request(catalog=str(broken[0])), tmp_path / "out"
    built = build(request, str(out), workers=workers)
    whole = build(make_request(), str(tmp_path / "whole"), workers=0)
    lost = built.counts["unreadable: B05 of S2-1 cannot be decoded"]
    assert lost == 6
    assert sum(built.counts.values()) == sum(whole.counts.values())
    shards = [
        {n: h for n, h in harness.tree(tmp_path / x).items() if n.startswith("shards/")} for x in ("out", "whole")
    ]
    assert shards[0] == {name: digest for name, digest in shards[1].items() if "u00001" not in name} != {}
    again = build(request, str(tmp_path / "again"), workers=0)
    assert again == built


def test_a_read_that_may_pass_fails_its_unit_alone_and_can_be_repaired(
    make_request: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, out = make_request(), tmp_path / "out"

    read_band = raster.read_band

    def fail(scene: Scene, band: str, *args: Any, **kwargs: Any) -> Any:
        if (scene.scene_id, band) == ("S2-1", "B05"):
            raise ReadError(scene.scene_id, band, "https://host/a.tif", "HTTP response code: 503")
        return read_band(scene, band, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(raster, "read_band", fail)
        with pytest.raises(UnitsFailed, match=r"1 of 3 units failed; the others are kept:\n  u00001  B05 of S2-1: "):
            build(request, str(out), workers=0)
    assert not (out / "manifest.json").exists()
    assert {path.name for path in (out / "receipts").iterdir()} == {"u00000.json", "u00002.json"}
    with pytest.raises(UsageError, match="not a finished data set"):
        manifest.load(Store.at(out))
    kept = {path: path.stat().st_mtime_ns for path in out.glob("shards/*/u0000[02]*")}
    build(request, str(out), workers=0)
    build(request, str(tmp_path / "calm"), workers=0)
    assert harness.tree(out) == harness.tree(tmp_path / "calm")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_several_failing_assets_are_counted(make_request: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_band = raster.read_band

    def fail(scene: Scene, band: str, *args: Any, **kwargs: Any) -> Any:
        if scene.scene_id in {"S1-0", "S1-2"}:
            raise ReadError(scene.scene_id, band, "https://host/a.tif", "HTTP response code: 503")
        return read_band(scene, band, *args, **kwargs)

    monkeypatch.setattr(raster, "read_band", fail)
    with pytest.raises(UnitsFailed, match=r"2 of 3 units failed; the others are kept:\n  u00000  VV of S1-0: "):
        build(make_request(), str(tmp_path / "out"), workers=0)


def test_explain(make_request: Ask) -> None:
    plan = make_plan(make_request())
    assert explain(plan) == "nothing was left out"
    plan = replace(plan, scenes_left_out={"a": "no date", "b": "no date", "c": "no S1"})
    assert explain(plan) == "2 scenes: no date; 1 scenes: no S1"
    assert planfile.PLAN_NAME == "plan.parquet"


def test_real_scenes_end_to_end(ask_real: Ask, tmp_path: Path) -> None:
    """All eight pairs, one chip each; nothing is rejected, sigma0 and gamma0 side by side."""
    built = build(ask_real(grid="aoi", chip_px=40, labels=("labels",)), str(tmp_path), workers=0)
    assert built.counts == {"accepted": 8}
    rows = manifest.load_index(Store.at(tmp_path), built).to_pylist()
    assert {row["gap_hours"] <= 72 for row in rows} == {True}
    stats = manifest.load_stats(Store.at(tmp_path))
    assert stats.s2 is not None
    assert stats.s1 is not None
    assert 200 < stats.s2.mean[3] < 4000
    assert -20 < stats.s1.mean[0] < 0
    assert stats.s1.mean[1] < stats.s1.mean[0]  # VH is darker than VV
