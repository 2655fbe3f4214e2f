"""Masks and verdicts against a plain loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.pixels.quality import cloud_share, judge, make_mask
from pipeline.sample import MaskBit

pytestmark = pytest.mark.ingest


@given(st.integers(0, 2**31), st.booleans())
def test_mask_is_a_plain_loop(seed: int, with_scl: bool) -> None:
    random = np.random.default_rng(seed)
    s2, s1 = random.random((2, 6, 7)) < 0.7
    scl = random.integers(0, 13, (6, 7), dtype=np.uint8)
    mask = make_mask(s2, s1, scl if with_scl else None)
    assert mask.dtype == np.uint8
    bits = {0: 1, 3: 8, 8: 4, 9: 4, 10: 4, 11: 16}  # ESA's classes: nodata, shadow, clouds, cirrus, snow
    for i in range(6):
        for j in range(7):
            want = (0 if s2[i, j] else 1) | (0 if s1[i, j] else 2) | (bits.get(int(scl[i, j]), 0) if with_scl else 0)
            assert mask[i, j] == want


def _mask(s2: int = 0, s1: int = 0, cloud: int = 0) -> np.ndarray:
    mask = np.zeros(100, np.uint8)
    mask[:s2] |= np.uint8(MaskBit.S2_NODATA)
    mask[:s1] |= np.uint8(MaskBit.S1_NODATA)
    mask[100 - cloud :] |= np.uint8(MaskBit.CLOUD)
    return mask.reshape(10, 10)


@pytest.mark.parametrize(
    ("mask", "cloud", "reason"),
    [
        (_mask(), 0.0, ""),
        (_mask(s2=10), 0.0, ""),
        (_mask(s2=11), 0.0, "s2 nodata"),
        (_mask(s1=11), 0.0, "s1 nodata"),
        (_mask(s2=11, s1=11), 0.9, "s2 nodata"),
        (_mask(), 0.2, ""),
        (_mask(), 0.21, "cloud"),
        (_mask(), None, ""),
        (_mask(s2=10, s1=10), 0.2, ""),
    ],
)
def test_verdict(mask: np.ndarray, cloud: float | None, reason: str) -> None:
    report = judge(mask, cloud, max_nodata=0.1, max_cloud=0.2)
    assert report.reason == reason
    assert report.cloud_fraction == cloud


def test_valid_fraction_is_what_both_sensors_have() -> None:
    mask = _mask(s2=10) | _mask(s1=4)[::-1]
    assert judge(mask, None, max_nodata=1, max_cloud=1).valid_fraction == pytest.approx(0.86)


def test_cloud_is_counted_where_the_ground_was_seen() -> None:
    assert cloud_share(_mask(s2=50, cloud=10)) == pytest.approx(0.2)
    assert cloud_share(_mask(cloud=10)) == pytest.approx(0.1)
    assert cloud_share(_mask(s2=100, cloud=100)) == 0.0
    assert cloud_share(np.full((2, 2), MaskBit.SNOW | MaskBit.SHADOW, np.uint8)) == 0.0
