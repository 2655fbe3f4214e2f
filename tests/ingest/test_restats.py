"""Statistics of groups, against numpy over all pixels at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.build import build
from ingest.care import restats
from ingest.care.samples import DataSet, open_set
from ingest.request import Request
from pipeline import manifest, stats
from pipeline.errors import CorruptShard, UsageError
from pipeline.store import Store

pytestmark = pytest.mark.ingest


@pytest.fixture(scope="module")
def data(make_request: Callable[..., Request], tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    out = str(tmp_path_factory.mktemp("stats") / "out")
    build(make_request(), out, workers=0)
    return open_set(Store.at(out))


def test_without_groups_they_are_those_of_the_data_set(data: DataSet) -> None:
    found = restats.measure(data, threads=3)
    known = manifest.load_stats(data.store)
    assert list(found) == ["train"]
    assert found["train"].samples == 13
    for ours, theirs in ((found["train"].s2, known.s2), (found["train"].s1, known.s1)):
        assert ours is not None
        assert theirs is not None
        assert (ours.count, ours.histogram, ours.minimum) == (theirs.count, theirs.histogram, theirs.minimum)
        np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-12)
        np.testing.assert_allclose(ours.m2, theirs.m2, rtol=1e-9)


@pytest.mark.parametrize("by", [("orbit",), ("season", "year"), ("split", "zone", "backscatter")])
def test_groups_are_disjoint_and_merge_to_the_whole(data: DataSet, by: tuple[str, ...]) -> None:
    found = restats.measure(data, by)
    assert sum(one.samples for one in found.values()) == 13
    merged = stats.merge([one.s2 for one in found.values() if one.s2])
    whole = restats.measure(data)["train"].s2
    assert merged is not None
    assert whole is not None
    assert merged.histogram == whole.histogram
    np.testing.assert_allclose(merged.std, whole.std, rtol=1e-9)


def test_a_group_is_what_numpy_says(data: DataSet, make_request: Callable[..., Request]) -> None:
    months = {row["key"]: row["time"].month for row in data.rows()}
    found = restats.measure(data, ("season",))
    assert set(found) == {"summer"}
    assert set(months.values()) <= {6, 7, 8}
    pixels = [np.where(one.mask & 5, np.nan, one.s2[3]) for one in (data.read(row) for row in data.rows())]
    assert found["summer"].s2 is not None
    assert found["summer"].s2.mean[3] == pytest.approx(np.nanmean(pixels), rel=1e-12)
    assert found["summer"].s2.std[3] == pytest.approx(np.nanstd(pixels), rel=1e-9)


@pytest.mark.parametrize(
    ("month", "north"), [(12, "winter"), (2, "winter"), (3, "spring"), (8, "summer"), (11, "autumn")]
)
def test_seasons_turn_at_the_equator(month: int, north: str) -> None:
    other = {"winter": "summer", "summer": "winter", "spring": "autumn", "autumn": "spring"}
    assert restats.season(month, 10.0) == north
    assert restats.season(month, -10.0) == other[north]


def test_tables_and_json_hold_every_band(data: DataSet) -> None:
    found = restats.measure(data, ("orbit",))
    assert len(restats.lines(found)) == 1 + 14
    told = restats.as_json(found)["ascending"]
    assert told["samples"] == 13
    assert told["s1"]["bands"] == ["VV", "VH"]


def test_mistakes_are_told(data: DataSet, tmp_path: Path, make_request: Any) -> None:
    with pytest.raises(UsageError, match="--by moon: choose from split"):
        restats.measure(data, ("moon",))
    out = tmp_path / "damaged"
    build(make_request(), str(out), workers=0)
    shard = out / "shards" / "train" / "u00000-0000.tar"
    shard.write_bytes(shard.read_bytes()[:-9000])
    with pytest.raises(CorruptShard, match="ingest verify"):
        restats.measure(open_set(Store.at(str(out))))
