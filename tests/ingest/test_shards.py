"""One unit's shards, index rows and statistics; a finished data set."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ingest import receipt, shards
from ingest.assemble import Made, assemble
from ingest.build import build
from ingest.plan import IngestPlan
from ingest.planner import make_plan
from ingest.request import Request
from pipeline import manifest
from pipeline.codec import decode
from pipeline.index import MemberRef, check
from pipeline.manifest import Manifest
from pipeline.sample import MaskBit, PairSample, arrays
from pipeline.store import Store

pytestmark = pytest.mark.ingest


@pytest.fixture(scope="module")
def plan(make_request: Callable[..., Request]) -> IngestPlan:
    return make_plan(make_request(val_percent=0.0))


@pytest.fixture(scope="module")
def made(plan: IngestPlan) -> list[Made]:
    found = list(assemble(plan.units[1], plan.request, with_label=False))
    return [replace(one, task=replace(one.task, split="val" if i % 2 else "train")) for i, one in enumerate(found)]


def _write(store: Store, plan: IngestPlan, made: list[Made]) -> receipt.Receipt:
    return shards.write_unit(
        store, plan.units[1], made, request=replace(plan.request, codec="npy"), fingerprint=plan.fingerprint
    )


def test_a_receipt_says_where_everything_is(plan: IngestPlan, made: list[Made]) -> None:
    store = Store.at("memory://one-unit")
    done = _write(store, plan, made)
    samples = {one.task.key: one.sample for one in made if one.sample is not None}
    assert [row.key for row in done.rows] == sorted(samples, key=[row.key for row in done.rows].index)
    assert {row.key for row in done.rows} == set(samples)
    for row in done.rows:
        tar, sample = store.read(row.shard), samples[row.key]
        assert row.shard == f"shards/{row.split}/u00001-0000.tar"
        members = {}
        for name, ref in row.members.items():
            data = store.read_range(row.shard, ref.offset, ref.offset + ref.size)
            assert tar[ref.offset : ref.offset + ref.size] == data
            assert check(data, ref)
            members["json" if name == "json" else f"{name}.npy"] = data
        again = decode(row.key, members, kind="pair", specs=done.members)
        assert again.meta == sample.meta
        for name, array in arrays(sample).items():
            assert arrays(again)[name].tobytes() == array.tobytes()
        assert (row.time, row.gap_hours) == (sample.meta.acquired[0], sample.meta.gap_hours)
        assert row.shift == (sample.meta.shift_px and sample.meta.shift_px[:2])
    for entry in done.shards:
        data = store.read(entry.path)
        assert (entry.bytes, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert entry.samples == sum(row.shard == entry.path for row in done.rows)
    assert [outcome.reason for outcome in done.outcomes] == [one.quality.reason for one in made]
    assert [outcome.key for outcome in done.outcomes] == [one.task.key for one in made]
    assert done.plan_fingerprint == plan.fingerprint


def _clouded(one: Made) -> Made:
    """The same chip with a few pixels of cloud and of missing radar."""
    if one.sample is None:
        return one
    mask, s1 = one.sample.mask.copy(), one.sample.s1.copy()
    mask[:2] |= np.uint8(MaskBit.CLOUD)
    mask[:, :3] |= np.uint8(MaskBit.S1_NODATA)
    s1[:, :, :3] = np.nan
    return replace(one, sample=replace(one.sample, mask=mask, s1=s1))


def test_statistics_are_those_of_clean_training_pixels(plan: IngestPlan, made: list[Made]) -> None:
    made = [_clouded(one) for one in made]
    done = _write(Store.at("memory://clouded-unit"), plan, made)
    train = [one.sample for one in made if one.sample is not None and one.task.split == "train"]
    assert done.s2 is not None
    assert done.s1 is not None
    for i, name in enumerate(done.s2.bands):
        clean = np.concatenate([s.s2[i][(s.mask & (MaskBit.S2_NODATA | MaskBit.CLOUD)) == 0] for s in train])
        assert done.s2.count[i] == clean.size, name
        assert_allclose((done.s2.mean[i], done.s2.std[i]), (clean.mean(), clean.std()), rtol=1e-9)
    values = np.concatenate([s.s1[0][(s.mask & MaskBit.S1_NODATA) == 0] for s in train]).astype(float)
    assert_allclose((done.s1.mean[0], done.s1.std[0]), (values.mean(), values.std()), rtol=1e-6)


def test_a_full_shard_is_closed(plan: IngestPlan, made: list[Made], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    store = Store.at("memory://many-shards")
    done = _write(store, plan, made)
    assert [entry.samples for entry in done.shards] == [1] * len(done.rows)
    assert [entry.path for entry in done.shards] == [
        *(f"shards/train/u00001-{i:04d}.tar" for i in range(sum(row.split == "train" for row in done.rows))),
        *(f"shards/val/u00001-{i:04d}.tar" for i in range(sum(row.split == "val" for row in done.rows))),
    ]


def test_a_unit_without_any_good_chip(plan: IngestPlan, made: list[Made]) -> None:
    store = Store.at("memory://nothing-good")
    done = _write(store, plan, [replace(one, sample=None) for one in made])
    assert (done.shards, done.rows, done.members, done.s2, done.s1) == ((), (), (), None, None)
    assert len(done.outcomes) == len(made)
    assert store.names() == []
    receipt.publish(store, done)
    assert receipt.load(store, "u00001") == done


def test_val_only_has_no_statistics(plan: IngestPlan, made: list[Made]) -> None:
    val = [replace(one, task=replace(one.task, split="val")) for one in made]
    done = _write(Store.at("memory://val-only"), plan, val)
    assert done.s2 is done.s1 is None
    assert done.rows


@pytest.fixture(scope="module")
def finished(make_request: Callable[..., Request], tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Manifest]:
    out = tmp_path_factory.mktemp("finished")
    built = build(make_request(labels=("labels",)), str(out), workers=0)
    return Store.at(out), built


def test_manifest_adds_up(finished: tuple[Store, Manifest]) -> None:
    store, built = finished
    assert manifest.load(store) == built
    assert built.counts == {"accepted": 13, "cloud": 2, "s2 nodata": 3}
    assert (built.samples("train"), built.samples("val")) == (13, 0)
    assert [spec.name for spec in built.members] == ["s2", "s1", "mask", "label"]
    assert (built.chip_px, built.kind, built.codec) == (24, "pair", "b2")
    rows = manifest.load_index(store, built).to_pylist()
    assert len(rows) == 13
    assert [row["shard"] for row in rows] == sorted(row["shard"] for row in rows)
    assert [entry.path for entry in built.shards] == sorted({row["shard"] for row in rows})
    for row in rows:
        for name in ("s2", "s1", "mask", "label", "json"):
            ref = MemberRef(offset=row[f"{name}_offset"], size=row[f"{name}_size"], crc32c=row[f"{name}_crc32c"])
            assert check(store.read_range(row["shard"], ref.offset, ref.offset + ref.size), ref)
        meta = json.loads(store.read_range(row["shard"], row["json_offset"], row["json_offset"] + row["json_size"]))
        assert row["key"].startswith(meta["cell_id"])


def test_statistics_of_the_data_set_are_those_of_its_samples(finished: tuple[Store, Manifest]) -> None:
    store, built = finished
    stats, samples = manifest.load_stats(store), list(_samples(store, built))
    assert stats.s2 is not None
    assert stats.s1 is not None
    clean = np.concatenate([s.s2[3][(s.mask & 5) == 0] for s in samples])
    assert stats.s2.count[3] == clean.size
    assert_allclose((stats.s2.mean[3], stats.s2.std[3]), (clean.mean(), clean.std()), rtol=1e-9)
    assert (stats.s2.minimum[3], stats.s2.maximum[3]) == (clean.min(), clean.max())


def _samples(store: Store, built: Manifest) -> Any:
    for row in manifest.load_index(store, built).to_pylist():
        members = {
            name if name == "json" else f"{name}.{built.codec}": store.read_range(
                row["shard"], row[f"{name}_offset"], row[f"{name}_offset"] + row[f"{name}_size"]
            )
            for name in ("s2", "s1", "mask", "label", "json")
        }
        sample = decode(row["key"], members, kind="pair", specs=built.members)
        assert isinstance(sample, PairSample)
        yield sample


def test_sweeps_what_the_killed_left(finished: tuple[Store, Manifest], plan: IngestPlan, tmp_path: Path) -> None:
    import os
    import shutil

    shutil.copytree(finished[0].root, tmp_path / "out")
    old, new = (tmp_path / "out" / "shards" / "train" / f".part-{age}" for age in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    store = Store.at(tmp_path / "out")
    from ingest import planfile

    shards.finish(store, planfile.from_parquet(store.read("plan.parquet")))
    assert not old.exists()
    assert new.exists()
