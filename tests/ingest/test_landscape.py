"""The landscape: single-valued, smooth enough for 60 m pixels, with sane classes, seasons and clouds."""

from datetime import date

import numpy as np
import pytest

from ingest.synthetic import CLASSES, cloud_cover, cloud_shadow, gamma0, land_cover, reflectance
from ingest.synthetic.landscape import ground, snow_cover, sun
from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.errors import UsageError

pytestmark = pytest.mark.ingest

SUMMER, WINTER = date(2021, 7, 9), date(2021, 1, 8)
PLACES = ((14.0, 46.0), (-60.0, -20.0), (179.99, 10.0), (100.0, 68.0), (0.0, 0.0))


def patch(lon: float, lat: float, n: int = 300, step_m: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    along = np.arange(n) * step_m / 111_195
    return np.meshgrid(lon + along / np.cos(np.radians(lat)), lat - along)


@pytest.mark.parametrize(("lon", "lat"), PLACES)
def test_values_are_physical_everywhere(lon, lat):
    points = patch(lon, lat, 60, 200.0)
    for band in S2_NAMES:
        assert 0 < reflectance(*points, band, SUMMER).min() <= reflectance(*points, band, SUMMER).max() < 0.9
    for polarisation in S1_NAMES:
        power_db = 10 * np.log10(gamma0(*points, polarisation, SUMMER))
        assert -26 < power_db.min() < power_db.max() < -4


def test_shares_of_classes_sum_to_one_and_every_class_is_there():
    cover = land_cover(*patch(14.0, 46.0, 200, 100.0))
    assert cover.shape == (len(CLASSES), 200, 200)
    assert cover.min() > -1e-6
    np.testing.assert_allclose(cover.sum(axis=0), 1, atol=1e-5)
    assert (cover.mean(axis=(1, 2)) > 0.02).all()


def test_one_value_a_place_whatever_the_winding_or_the_seed_says():
    lon, lat = patch(179.999, 10.0, 50)
    east, west = reflectance(lon, lat, "B08", SUMMER), reflectance(lon - 360, lat, "B08", SUMMER)
    np.testing.assert_allclose(east, west, atol=2e-6)
    assert np.abs(east - reflectance(lon, lat, "B08", SUMMER, seed=1)).max() > 0.02


def test_a_point_alone_has_the_value_it_has_in_an_array():
    lon, lat = patch(14.0, 46.0, 20)
    alone = reflectance(lon[7, 11], lat[7, 11], "B04", SUMMER)
    assert float(alone) == pytest.approx(float(reflectance(lon, lat, "B04", SUMMER)[7, 11]), abs=1e-6)


@pytest.mark.parametrize(("lon", "lat"), PLACES)
@pytest.mark.parametrize("channel", ["B04", "B08", "VV"])
def test_hardly_any_power_beyond_what_a_sixty_metre_pixel_holds(lon, lat, channel):
    points = patch(lon, lat)
    values = gamma0(*points, channel, SUMMER) if channel == "VV" else reflectance(*points, channel, SUMMER)
    window = np.hanning(300)
    power = np.abs(np.fft.fft2((values - values.mean()) * window[:, None] * window)) ** 2
    per_m = np.hypot(*np.meshgrid(np.fft.fftfreq(300, 10), np.fft.fftfreq(300, 10)))
    assert power[per_m > 1 / 120].sum() < 5e-3 * power.sum()
    assert power[per_m > 1 / 60].sum() < 1e-4 * power.sum()


def test_radar_and_optics_see_the_same_borders():
    points = patch(14.0, 46.0)
    slope = {
        "VV": np.hypot(*np.gradient(np.log(gamma0(*points, "VV", SUMMER)))),
        "B08": np.hypot(*np.gradient(np.log(reflectance(*points, "B08", SUMMER)))),
    }
    assert np.corrcoef(slope["VV"].ravel(), slope["B08"].ravel())[0, 1] > 0.5


def test_crops_are_greener_in_summer_on_both_hemispheres():
    for lat, green, brown in ((46.0, SUMMER, WINTER), (-35.0, WINTER, SUMMER)):
        points = patch(14.0, lat, 100, 50.0)
        crops = land_cover(*points)[CLASSES.index("crops")] > 0.8
        ndvi = {}
        for when in (green, brown):
            red, nir = (reflectance(*points, band, when)[crops] for band in ("B04", "B08"))
            ndvi[when] = np.median((nir - red) / (nir + red))
        assert ndvi[green] > ndvi[brown] + 0.15


def test_water_is_dark_in_near_infrared_and_in_radar():
    points = patch(14.0, 46.0, 200, 50.0)
    water = land_cover(*points)[0] > 0.95
    assert np.median(reflectance(*points, "B08", SUMMER)[water]) < 0.03
    assert 10 * np.log10(np.median(gamma0(*points, "VV", SUMMER)[water])) == pytest.approx(-17.2, abs=0.5)


def test_snow_lies_in_the_north_in_winter_only():
    northern, tropical = ground(*patch(25.0, 66.0, 50, 100.0)), ground(*patch(25.0, 5.0, 50, 100.0))
    assert snow_cover(northern, WINTER).mean() > 0.5
    assert snow_cover(northern, SUMMER).max() < 0.01
    assert snow_cover(tropical, WINTER).max() < 0.01


@pytest.mark.parametrize("amount", [0.0, 0.05, 0.5, 0.9])
def test_clouds_take_the_share_they_are_given(amount):
    opacity = cloud_cover(*patch(14.0, 46.0, 300, 400.0), SUMMER, amount)
    assert 0 <= opacity.min() <= opacity.max() <= 1
    assert (opacity > 0.12).mean() == pytest.approx(amount, abs=0.05)


def test_each_day_has_clouds_of_its_own():
    points = patch(14.0, 46.0, 100, 100.0)
    days = [cloud_cover(*points, date(2021, 7, day), 0.5) for day in (9, 10)]
    assert abs(np.corrcoef(days[0].ravel(), days[1].ravel())[0, 1]) < 0.5


def test_shadows_lie_away_from_the_sun():
    zenith_deg, azimuth_deg = sun(46.0, SUMMER)
    assert 20 < zenith_deg < 50
    assert 90 < azimuth_deg < 180
    points = patch(14.0, 46.0, 200, 50.0)
    clouds, shadow = cloud_cover(*points, SUMMER, 0.3), cloud_shadow(*points, SUMMER, 0.3)
    spectrum = np.fft.fft2(clouds - clouds.mean()).conj() * np.fft.fft2(shadow - shadow.mean())
    peak = np.unravel_index(np.fft.ifft2(spectrum).real.argmax(), clouds.shape)
    down, right = ((at + 100) % 200 - 100 for at in peak)
    assert down < 0 < -right
    assert np.hypot(down, right) * 50 == pytest.approx(1200 * np.tan(np.radians(zenith_deg)), abs=80)


def test_a_shadow_does_not_depend_on_what_else_is_asked():
    lon, lat = patch(14.0, 46.5, 100, 100.0)
    whole = cloud_shadow(lon, lat, SUMMER, 0.3)
    np.testing.assert_allclose(cloud_shadow(lon[90:], lat[90:], SUMMER, 0.3), whole[90:], atol=1e-5)


def test_an_unknown_channel_is_refused_by_name():
    with pytest.raises(UsageError, match="B10"):
        reflectance(14.0, 46.0, "B10", SUMMER)
