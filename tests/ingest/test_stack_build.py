"""Stacks from a catalog to shards and cube: the right scenes, whatever the workers, and readable by others."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from ingest import planfile
from ingest.areas.grid import footprints
from ingest.assemble_stack import _Frame, _Series
from ingest.build import build, explain
from ingest.cli import app
from ingest.cube import open_cube
from ingest.pixels.mosaic import Image
from ingest.pixels.quality import QualityReport
from ingest.plan import StackTask
from ingest.planner import make_plan
from ingest.request import Request, spacing
from ingest.scenes.pairing import PairRules
from ingest.scenes.spacing import Spacing
from ingest.scenes.stacking import stack
from pipeline import index, manifest, record
from pipeline.codec import decode
from pipeline.errors import UsageError
from pipeline.sample import PairSample, Sample, StackSample, validate
from pipeline.store import Store

pytestmark = pytest.mark.ingest
Ask = Callable[..., Request]
RGB = ("B02", "B03", "B04")


@pytest.fixture(scope="module")
def asked(make_request: Ask) -> Request:
    return make_request(kind="stack", s1=(), max_gap_hours=0.0, frames=2, min_gap_hours=24.0, s2_bands=RGB)


@pytest.fixture(scope="module")
def built(asked: Request, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.at(str(tmp_path_factory.mktemp("stacks") / "out"))
    build(asked, store.url, workers=0)
    return store


def samples(store: Store) -> dict[str, StackSample]:
    found = {}
    for sample in _decoded(store):
        assert isinstance(sample, StackSample)
        found[sample.key] = sample
    return found


def _decoded(store: Store) -> Iterator[Sample]:
    known = manifest.load(store)
    table = manifest.load_index(store, known)
    names = [spec.name for spec in known.members] + ["json"]
    for row in table.to_pylist():
        members = {}
        for name in names:
            start = row[f"{name}_offset"]
            data = store.read_range(row["shard"], start, start + row[f"{name}_size"])
            assert index.crc32c(data) == row[f"{name}_crc32c"]
            members[name if name == "json" else f"{name}.{known.codec}"] = data
        sample = decode(row["key"], members, kind=known.kind, specs=known.members)
        validate(sample)
        assert row["time"] == sample.meta.acquired[0]
        yield sample


def tree(store: Store) -> dict[str, str]:
    root = Path(store.path(""))
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_frames_are_the_scenes_pixels(built: Store, asked: Request, tiny: Any) -> None:
    known = manifest.load(built)
    assert (known.kind, known.s2_bands, known.s1_bands) == ("stack", RGB, ())
    assert known.members[0].shape == (2, 3, 24, 24)
    stats = manifest.load_stats(built)
    assert stats.s2 is not None
    assert stats.s2.bands == RGB
    assert stats.s1 is None
    plan = make_plan(asked)
    offsets = {scene.scene_id: scene.assets["B04"].dn_offset for task in plan.tasks for scene in task.candidates}
    found = samples(built)
    assert found
    for sample in found.values():
        first, second = sample.meta.acquired
        assert (second - first).total_seconds() >= 24 * 3600
        col, row = (round((sample.meta.transform[2] - 500040) / 10), round((5300040 - sample.meta.transform[5]) / 10))
        for frame, scene_id in enumerate(sample.meta.scene_ids["s2"]):
            with rasterio.open(tiny.path(scene_id, "B04")) as file:
                dn = file.read(1)[row : row + 24, col : col + 24].astype(int)
            wanted = np.where(dn == 0, 0, np.maximum(dn + offsets[scene_id], 1))
            np.testing.assert_array_equal(sample.s2[frame, 2], wanted)


def test_cube_equals_shards(built: Store) -> None:
    cube, found = open_cube(built), samples(built)
    assert cube["s2"].dims == ("sample", "frame", "band", "y", "x")
    assert list(cube["band"].values) == list(RGB)
    keys = cube["key"].values.tolist()
    assert sum(cube["accepted"].values) == len(found)
    for key, sample in found.items():
        chip = cube.isel(sample=keys.index(key))
        np.testing.assert_array_equal(chip["s2"].values, sample.s2)
        np.testing.assert_array_equal(chip["mask"].values, sample.mask)
        times = [round(when.timestamp()) for when in sample.meta.acquired]
        assert chip["time"].values.astype("datetime64[s]").astype(int).tolist() == times


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves closing to the collector
def test_webdataset_opens_the_shards(built: Store) -> None:
    webdataset = pytest.importorskip("webdataset", reason="needs the train extra")
    shapes = {f".{spec.name}.b2": (spec.dtype, spec.shape) for spec in manifest.load(built).members}

    def decode_b2(key: str, data: bytes) -> np.ndarray | None:
        if key in shapes:
            return np.frombuffer(blosc2.decompress2(data), shapes[key][0]).reshape(shapes[key][1])
        return None

    shards = [built.path(shard.path) for shard in manifest.load(built).shards]
    found = list(webdataset.WebDataset(shards, shardshuffle=False).decode(decode_b2))
    assert [one["__key__"] for one in found] == list(samples(built))
    for one, sample in zip(found, samples(built).values(), strict=True):
        np.testing.assert_array_equal(one["s2.b2"], sample.s2)
        np.testing.assert_array_equal(one["mask.b2"], sample.mask)
        assert one["json"] == record.to_json(sample.meta)


@pytest.mark.slow
def test_workers_and_a_second_run_change_nothing(built: Store, asked: Request, tmp_path: Path) -> None:
    before = tree(built)
    build(asked, built.url, workers=0)
    assert tree(built) == before
    for workers in (1, 2):
        other = Store.at(str(tmp_path / str(workers)))
        build(asked, other.url, workers=workers)
        assert tree(other) == before


def test_dates_that_turn_out_bad_are_replaced_or_told(asked: Request, make_request: Ask, tmp_path: Path) -> None:
    """No chip may have any cloud: what can be filled from spare dates is, the rest is rejected with its reason."""
    strict = make_request(
        kind="stack", s1=(), max_gap_hours=0.0, frames=2, min_gap_hours=24.0, s2_bands=RGB, max_cloud_percent=0.0
    )
    store = Store.at(str(tmp_path / "strict"))
    counts = dict(build(strict, store.url, workers=0).counts)
    assert sum(counts.values()) == len(make_plan(strict).tasks)
    assert set(counts) <= {"accepted", "too few dates: cloud", "too few dates: s2 nodata"}
    assert all((sample.mask & 4 == 0).all() for sample in samples(store).values())


def test_a_date_too_near_the_last_good_one_is_not_looked_at(
    make_request: Ask, make_scene: Callable[..., Any], make_cell: Callable[..., Any]
) -> None:
    scenes = tuple(make_scene(f"S{day}", hours=24.0 * day) for day in (0, 1, 30, 60))
    task = StackTask(key="k", cell=make_cell(), candidates=scenes, radar=(), labels=(), split="train", group="g")
    asked = make_request(kind="stack", frames=2, min_gap_hours=480.0)
    good = QualityReport(valid_fraction=1.0, cloud_fraction=0.0, reason="")
    pixels, plain = np.ones((3, 24, 24), np.uint16), np.zeros((24, 24), np.uint8)
    series = _Series(task=task, spacing=spacing(asked))
    assert series.wants(scenes[0], asked)
    for scene, wanted in zip(scenes, (True, False, True, False), strict=True):
        assert series.wants(scene, asked) == wanted
        if wanted:
            image = Image(
                data=pixels,
                valid=plain == 0,
                warped=np.zeros(3, bool),
                scl=None,
                cloud_percent=None,
                offsets={},
                scenes=(scene,),
            )
            series.offer(_Frame(s2=image, s1=None, mask=plain, quality=good))
    assert not series.wants(make_scene("stranger", hours=9999.0), asked)


def test_dates_further_apart_than_allowed_make_no_stack(make_request: Ask, tmp_path: Path) -> None:
    """The overpasses are ten days apart, and in one season."""
    common = {"kind": "stack", "s1": (), "max_gap_hours": 0.0, "frames": 2, "min_gap_hours": 24.0, "s2_bands": RGB}
    for rules in ({"widest_gap_hours": 216.0}, {"seasons": True}):
        with pytest.raises(UsageError, match="1 dates, 2 wanted"):
            build(make_request(**common, **rules), str(tmp_path), workers=0)
    build(make_request(**common, widest_gap_hours=264.0), str(tmp_path), workers=0)
    made = samples(Store.at(str(tmp_path)))
    assert made
    assert all((last - first).days <= 11 for first, last in (sample.meta.acquired for sample in made.values()))


def test_radar_of_a_stack_is_that_of_the_pairs_of_its_dates(make_request: Ask, tmp_path: Path) -> None:
    """The same scenes through the other kind of sample: six hours, twelve and two days from S2."""
    loose = {"max_cloud_percent": 100.0, "max_nodata_percent": 100.0}
    build(make_request(**loose), str(tmp_path / "pairs"), workers=0)
    decoded = _decoded(Store.at(str(tmp_path / "pairs")))
    pairs = {(one.meta.cell_id, one.meta.acquired[0]): one for one in decoded if isinstance(one, PairSample)}
    asked = make_request(**loose, kind="stack", frames=3, min_gap_hours=24.0)
    store = Store.at(str(tmp_path / "stacks"))
    build(asked, store.url, workers=0)
    assert manifest.load(store).s1_bands == ("VV", "VH")
    made = samples(store)
    assert made
    for sample in made.values():
        assert sample.s1 is not None
        of_date = [pairs[sample.meta.cell_id, when] for when in sample.meta.acquired]
        assert np.array_equal(sample.s1, np.stack([pair.s1 for pair in of_date]), equal_nan=True)
        assert np.array_equal(sample.mask, np.stack([pair.mask for pair in of_date]))
        assert sample.meta.s1_acquired == tuple(pair.meta.s1_acquired[0] for pair in of_date)
        assert sample.meta.gap_hours == max(pair.meta.gap_hours for pair in of_date) == 48.0
    cube = open_cube(store)
    assert cube["s1"].dims == ("sample", "frame", "polarisation", "y", "x")
    row = int(np.flatnonzero(cube["accepted"].values)[0])
    assert np.array_equal(cube["s1"][row].values, made[str(cube["key"][row].values)].s1, equal_nan=True)
    assert manifest.load_stats(store).s1 is not None


def test_dates_without_radar_near_enough_are_no_candidates(make_request: Ask) -> None:
    near = make_plan(make_request(kind="stack", frames=2, min_gap_hours=24.0, max_gap_hours=12.0))
    assert {len(task.candidates) for task in near.tasks} == {2}
    assert all(len(task.radar) == len(task.candidates) for task in near.tasks)
    assert planfile.from_parquet(planfile.to_parquet(near)) == near
    assert {"S2-2", "S1-2"} <= set(near.scenes_left_out)
    for rules, said in (({"max_gap_hours": 6.0}, "1 dates with S1 of one track"), ({"orbit": "descending"}, "0 dates")):
        none = make_plan(make_request(kind="stack", frames=2, min_gap_hours=24.0, **rules))
        assert all(said in item.reason for item in none.left_out)


def test_the_track_that_serves_the_most_dates_wins(
    make_scene: Callable[..., Any], make_cell: Callable[..., Any]
) -> None:
    cell = make_cell()
    s2 = [make_scene(f"S{day}", hours=24.0 * day) for day in (0, 10, 20)]
    tracks = {44: (1, 241, 400), 117: (2, 242, 482), 15: (3,)}
    s1 = [
        make_scene(f"R{track}-{hours}", sensor="s1", hours=float(hours), relative_orbit=track)
        for track, when in tracks.items()
        for hours in when
    ]
    made = stack(
        [cell],
        footprints([cell], inset_m=10),
        s2,
        frames=3,
        spacing=Spacing(min_gap_hours=24.0),
        radar=(s1, PairRules(max_gap_hours=12.0)),
    )
    assert [scene.scene_id for scene in made.stacks[0].radar] == ["R117-2", "R117-242", "R117-482"]


def test_a_request_that_cannot_be_met_says_why(make_request: Ask, tmp_path: Path) -> None:
    many = make_request(kind="stack", s1=(), max_gap_hours=0.0, frames=9, min_gap_hours=24.0)
    assert "9 wanted" in explain(make_plan(many))
    with pytest.raises(UsageError, match="9 wanted"):
        build(many, str(tmp_path / "none"), workers=0)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--kind", "pair", "--frames", "3"], "--kind stack"),
        (["--kind", "stack", "--frames", "0"], "--frames 0"),
        (["--kind", "stack", "--min-gap", "soon"], "--min-gap"),
        (["--kind", "stack", "--bands", "B10"], "B10"),
    ],
)
def test_bad_flags_are_one_message(tiny: Any, flags: list[str], said: str) -> None:
    asked = ["plan", "--aoi", str(tiny.aoi), "--catalog", str(tiny.root), "--chip-px", "24", *flags]
    done = CliRunner().invoke(app, asked)
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)


def test_the_command_plans_stacks(tiny: Any) -> None:
    flags = ["--kind", "stack", "--frames", "2", "--min-gap", "1d", "--chip-px", "24", "--json"]
    done = CliRunner().invoke(app, ["plan", "--aoi", str(tiny.aoi), "--catalog", str(tiny.root), *flags])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["chips"] > 0
    assert all(names.count(" + ") >= 1 for names in told["stacks"])
