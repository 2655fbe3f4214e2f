"""Which samples a run uses: a plain loop over the index says the same."""

import dataclasses
from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_pairs import NOON

from pipeline.bands import S2_NAMES
from pipeline.errors import UsageError
from pipeline.store import Store
from train.stream.config import Share, StreamConfig
from train.stream.lanes import LanePlan
from train.stream.loader import Loader
from train.stream.samples import chosen, open_samples
from train.stream.where import Where, where

pytestmark = pytest.mark.train
LON, LAT = st.floats(-180, 180), st.floats(-90, 90)


@given(
    rows=st.lists(st.tuples(LON, LAT, st.integers(0, 30), st.floats(0, 1) | st.none()), max_size=20),
    box=st.tuples(LON, LAT, LON, LAT).filter(lambda box: box[1] <= box[3]) | st.none(),
    days=st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda d: d[0] <= d[1]) | st.none(),
    cloud=st.floats(0, 1) | st.none(),
)
def test_it_is_a_plain_loop(rows: list, box: tuple | None, days: tuple | None, cloud: float | None) -> None:
    asked = Where(
        bbox=box,
        dates=None if days is None else tuple((NOON + timedelta(days=day)).date() for day in days),
        max_cloud=cloud,
    )
    table = pa.table(
        {
            "lon": pa.array([row[0] for row in rows], pa.float64()),
            "lat": pa.array([row[1] for row in rows], pa.float64()),
            "time": pa.array([NOON + timedelta(days=row[2]) for row in rows], pa.timestamp("us", tz="UTC")),
            "cloud": pa.array([row[3] for row in rows], pa.float64()),
        }
    )
    wanted = []
    for lon, lat, day, clouds in rows:
        west, south, east, north = box or (-180, -90, 180, 90)
        across = west <= lon <= east if west <= east else (lon >= west or lon <= east)
        in_time = days is None or days[0] <= day <= days[1]
        wanted.append(across and south <= lat <= north and in_time and (cloud is None or not (clouds or 0) > cloud))
    assert chosen(table, asked).tolist() == wanted


def test_a_narrowed_stream_reads_only_those(pairs: Store, sample_of: Callable) -> None:
    days = ((NOON + timedelta(days=5)).date(), (NOON + timedelta(days=14)).date())
    config = StreamConfig(global_batch=5, s2_bands=S2_NAMES, image_px=16)
    some = open_samples(pairs, "train", kind="pair", bands=config.bands, where=Where(dates=days))
    assert [some.key(number) for number in range(some.samples)] == [sample_of(n, 24).key for n in range(5, 15)]
    assert sum(some.shard_sizes) == 10
    np.testing.assert_array_equal(some.read(3).images["s2"], sample_of(8, 24).s2)
    plan = LanePlan(shard_sizes=some.shard_sizes, lanes=5, global_batch=5, seed=0)
    with Loader(some, plan, config, share=Share()) as loader:
        seen = [key for _ in range(2) for key in next(loader)[0].keys]
    assert sorted(seen) == [f"sample-{number:03d}" for number in range(5, 15)]
    with pytest.raises(UsageError, match="none of the 25 samples"):
        open_samples(pairs, "train", kind="pair", bands=config.bands, where=Where(bbox=(0, 0, 1, 1)))


def test_what_a_command_line_says() -> None:
    assert where(None, None, None) is None
    asked = where("-10,40.5,20,60", "2023-06-01/2023-06-30", 20)
    assert asked == Where(bbox=(-10.0, 40.5, 20.0, 60.0), dates=(date(2023, 6, 1), date(2023, 6, 30)), max_cloud=0.2)
    assert dataclasses.replace(asked, dates=None).dates is None
    for bad in (("1,2,3", None, None), ("a,b,c,d", None, None), (None, "2023-06-01", None), (None, None, 120)):
        with pytest.raises(UsageError):
            where(*bad)
    for box, days in (((0, 50, 1, 40), None), (None, (date(2024, 1, 2), date(2024, 1, 1)))):
        with pytest.raises(UsageError):
            Where(bbox=box, dates=days)
