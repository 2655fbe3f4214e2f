"""The band tables, against the field's own numbers."""

import math

import pytest

from pipeline.bands import L1C_BANDS, L1C_NAMES, S1_BANDS, S1_NAMES, S2_BANDS, S2_NAMES, positions
from pipeline.errors import BandMismatch


def test_storage_order_is_cromas() -> None:
    assert " ".join(S2_NAMES) == "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12"
    assert S1_NAMES == ("VV", "VH")


def test_native_resolutions() -> None:
    by_gsd = {gsd: [band.name for band in S2_BANDS if band.gsd_m == gsd] for gsd in (10, 20, 60)}
    assert by_gsd == {
        10: ["B02", "B03", "B04", "B08"],
        20: ["B05", "B06", "B07", "B8A", "B11", "B12"],
        60: ["B01", "B09"],
    }


def test_wavelengths_rise_and_scales_are_one() -> None:
    waves = [band.center_nm for band in S2_BANDS]
    assert waves == sorted(waves, key=float)
    assert {(band.scale, band.nodata, band.unit) for band in S2_BANDS} == {(1e-4, 0, "reflectance")}
    assert all(math.isnan(band.nodata) and band.unit == "dB" and band.center_nm is None for band in S1_BANDS)


def test_positions_follow_names_whatever_the_order() -> None:
    shuffled = S2_NAMES[::-1]
    assert [shuffled[i] for i in positions(shuffled, ("B8A", "B01"))] == ["B8A", "B01"]
    assert positions(S2_NAMES, ()) == ()


def test_a_band_that_is_not_there_is_named() -> None:
    with pytest.raises(BandMismatch, match="B10"):
        positions(S2_NAMES, ("B02", "B10"))


def test_level_1c_holds_what_every_reader_takes_by_name() -> None:
    """CROMA's twelve without B10, SatMAE's ten of 10 and 20 m; a few bands are not enough for either."""
    waves = [band.center_nm for band in L1C_BANDS]
    assert waves == sorted(waves, key=float)
    assert [L1C_NAMES[i] for i in positions(L1C_NAMES, S2_NAMES)] == list(S2_NAMES)
    ten = [band.name for band in L1C_BANDS if band.gsd_m < 60]
    assert len(ten) == 10
    assert [L1C_NAMES[i] for i in positions(L1C_NAMES, ten)] == ten
    with pytest.raises(BandMismatch, match="B10"):
        positions(S2_NAMES, L1C_NAMES)
    with pytest.raises(BandMismatch, match="B01"):
        positions(("B02", "B03", "B04"), S2_NAMES)
