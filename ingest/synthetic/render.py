"""From a scene to its pixels: the landscape at the pixel centres, then clouds, noise and digital numbers.

In: `SceneSpec`, seed. Out: one array per asset: uint16 digital numbers, uint8 SCL, float32 linear gamma
nought. The same scene and seed give the same pixels in any process. Noise: `reference/data.md` 5.1 (SNR) and
5.5 (speckle).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingest.synthetic import landscape
from ingest.synthetic.landscape import Array, Ground, Values, keyed_rng
from ingest.synthetic.scenes import SceneSpec, central_meridian, inside, to_lonlat
from pipeline.bands import S1_NAMES, S2_BANDS, S2_NAMES

S2_NODATA, S1_NODATA, SCL_NODATA = 0, -32768.0, 0

Classes = npt.NDArray[np.uint8]

_SNR = dict(zip(S2_NAMES, (129, 154, 168, 142, 117, 89, 105, 174, 72, 114, 100, 100), strict=True))
_REFERENCE_REFLECTANCE = 0.15
_SPECKLE_LOOKS = 5
_SPECKLE_SIGMA_PX = 1.32
_NOISE_POWER = 10**-2.4
_FLOOR_POWER = 1e-4
_BLOCK_ROWS = 64
_NODES = 8
_WORST_PX = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What a block of S2 pixels looks at: the ground, and what is between; arrays of the block's shape."""

    points: Ground
    """The ground at the pixel centres."""
    opacity: Values
    """Clouds in [0, 1]."""
    shadow: Values
    """Clouds between the ground and the sun, in [0, 1]."""


def render(scene: SceneSpec, *, seed: int, noise: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Asset key and pixels of every asset of `scene`, the 10 m bands first, SCL after the 20 m bands.

    Args:
        scene: What to render.
        seed: Which Earth.
        noise: False leaves out clouds, speckle and sensor noise.

    Yields:
        `B02` and so on: (rows, columns) uint16 at the band's own resolution, nodata 0; `SCL`: uint8 at 20 m;
        `vv` and `vh`: float32 linear power at 10 m, nodata -32768. `lulc`: uint8 at 10 m, 1 + the index into
        `landscape.CLASSES` of the class with the largest share.
    """
    if scene.sensor == "label":
        return _render_cover(scene, seed)
    sensor = _render_s2 if scene.sensor == "s2" else _render_s1
    return sensor(scene, seed, noise=noise)


def _render_cover(scene: SceneSpec, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    n_rows, _ = grid_shape(scene, 10)
    blocks = [landscape.land_cover(*pixel_lonlat(scene, 10, rows), seed=seed) for rows in _blocks(n_rows)]
    yield "lulc", np.concatenate([1 + shares.argmax(axis=0) for shares in blocks]).astype(np.uint8)


def pixel_lonlat(scene: SceneSpec, gsd_m: int, rows: slice) -> tuple[Array, Array]:
    """Longitude and latitude in degrees of pixel centres: `rows` of the grid at `gsd_m`.

    UTM is so smooth over a scene that a polynomial through 64 points gives it to micrometres at a fraction of
    the cost; each call measures the error, and takes the exact transform beyond a thousandth of a pixel.
    """
    x_m, y_m = pixel_xy(scene, gsd_m, rows)
    far_m = np.pi * landscape.EARTH_RADIUS_M / 180 / gsd_m
    lon, lat = _through_nodes(scene.epsg, x_m, y_m)
    probe = np.ix_(*(np.linspace(0, n - 1, 5).astype(int) for n in lon.shape))
    exact_lon, exact_lat = _exact(scene.epsg, x_m[probe[1]], y_m[probe[0]])
    if max(np.abs(lon[probe] - exact_lon).max(), np.abs(lat[probe] - exact_lat).max()) * far_m < _WORST_PX:
        return lon, lat
    return _exact(scene.epsg, x_m[None, :], y_m[:, None])


def pixel_xy(scene: SceneSpec, gsd_m: int, rows: slice = slice(None)) -> tuple[Array, Array]:
    """Metres. Pixel centres: x of all columns and y of `rows` of the grid at `gsd_m`."""
    n_rows, n_columns = grid_shape(scene, gsd_m)
    left, top = scene.origin_xy_m
    x_m = left + (np.arange(n_columns, dtype=np.float64) + 0.5) * gsd_m
    y_m = top - (np.arange(n_rows, dtype=np.float64) + 0.5) * gsd_m
    return x_m, y_m[rows]


def grid_shape(scene: SceneSpec, gsd_m: int) -> tuple[int, int]:
    """Rows and columns at `gsd_m`: 10, 20 or 60 m."""
    return scene.shape_yx[0] * 10 // gsd_m, scene.shape_yx[1] * 10 // gsd_m


def valid_pixels(scene: SceneSpec, gsd_m: int) -> npt.NDArray[np.bool_]:
    """Which pixels of the grid at `gsd_m` have their centre in the footprint."""
    x_m, y_m = pixel_xy(scene, gsd_m)
    return inside(scene.footprint_xy_m, x_m[None, :], y_m[:, None])


def speckle(shape: tuple[int, int], rng: np.random.Generator) -> Values:
    """Multiplicative speckle of mean 1: Gamma with 5 looks, lag-1 autocorrelation 0.75 in x and y.

    Each look is the power of complex Gaussian noise, smoothed to two pixels, the sensor's resolution.
    """
    taps = _gaussian_taps(_SPECKLE_SIGMA_PX)
    pad = len(taps) - 1
    power = np.zeros(shape, np.float32)
    for _ in range(2 * _SPECKLE_LOOKS):
        field = rng.standard_normal((shape[0] + pad, shape[1] + pad), np.float32)
        power += _smoothed(field, taps) ** 2
    return power / np.float32(2 * _SPECKLE_LOOKS)


def _render_s2(scene: SceneSpec, seed: int, *, noise: bool) -> Iterator[tuple[str, np.ndarray]]:
    for gsd_m in (10, 20, 60):
        bands = tuple(band.name for band in S2_BANDS if band.gsd_m == gsd_m)
        seen, scl = _s2_values(scene, gsd_m, bands, seed)
        valid = valid_pixels(scene, gsd_m)
        for band, values in zip(bands, seen, strict=True):
            rng = keyed_rng(seed, scene.scene_id, band)
            measured = values + _sensor_noise(values, band, rng) if noise else values
            yield band, _digital_numbers(measured, valid, scene.dn_offset)
        if gsd_m == 20:
            yield "SCL", np.where(valid, scl, np.uint8(SCL_NODATA))


def _s2_values(scene: SceneSpec, gsd_m: int, bands: Sequence[str], seed: int) -> tuple[Values, Classes]:
    """Reflectance (bands, rows, columns) without noise and, at 20 m, classes (rows, columns); all pixels."""
    shape = grid_shape(scene, gsd_m)
    seen, scl = np.empty((len(bands), *shape), np.float32), np.zeros(shape, np.uint8)
    for rows in _blocks(shape[0]):
        view = _view(scene, gsd_m, rows, seed)
        for index, band in enumerate(bands):
            clear = landscape.ground_reflectance(view.points, band, scene.when)
            seen[index, rows] = landscape.under_clouds(clear, band, view.opacity, view.shadow)
        if gsd_m == 20:
            scl[rows] = _scene_classes(scene, view)
    return seen, scl


def _view(scene: SceneSpec, gsd_m: int, rows: slice, seed: int) -> _View:
    lon, lat = pixel_lonlat(scene, gsd_m, rows)
    day, amount = scene.when, scene.cloud_amount
    return _View(
        points=landscape.ground(lon, lat, seed=seed),
        opacity=landscape.cloud_cover(lon, lat, day, amount, seed=seed),
        shadow=landscape.cloud_shadow(lon, lat, day, amount, seed=seed),
    )


def _scene_classes(scene: SceneSpec, view: _View) -> Classes:
    """SCL: 3 shadow, 4 vegetation, 5 bare, 6 water, 8, 9 cloud, 10 cirrus, 11 snow; the first that holds."""
    red, nir = (landscape.ground_reflectance(view.points, band, scene.when) for band in ("B04", "B08"))
    rules = (
        (view.opacity > 0.6, 9),
        (view.opacity > 0.35, 8),
        (view.opacity > 0.12, 10),
        (view.shadow > 0.4, 3),
        (landscape.snow_cover(view.points, scene.when) > 0.5, 11),
        (view.points.cover[0] > 0.5, 6),
        ((nir - red) / (nir + red) > 0.35, 4),
    )
    where, values = zip(*rules, strict=True)
    classes: Classes = np.select(where, values, 5).astype(np.uint8)
    return classes


def _sensor_noise(values: Values, band: str, rng: np.random.Generator) -> Values:
    """Shot noise: the signal to noise ratio is the sensor's at 0.15 and grows with the root of the signal."""
    sigma: Values = np.sqrt(values * np.float32(_REFERENCE_REFLECTANCE)) / np.float32(_SNR[band])
    return sigma * rng.standard_normal(values.shape, np.float32)


def _digital_numbers(values: Values, valid: npt.NDArray[np.bool_], offset: int) -> npt.NDArray[np.uint16]:
    numbers: npt.NDArray[np.uint16] = np.clip(np.rint(values * 10_000) + offset, 1, 65_535).astype(np.uint16)
    numbers[~valid] = S2_NODATA
    return numbers


def _render_s1(scene: SceneSpec, seed: int, *, noise: bool) -> Iterator[tuple[str, np.ndarray]]:
    power = np.empty((len(S1_NAMES), *scene.shape_yx), np.float32)
    for rows in _blocks(scene.shape_yx[0]):
        points = landscape.ground(*pixel_lonlat(scene, 10, rows), seed=seed)
        for index, name in enumerate(S1_NAMES):
            power[index, rows] = landscape.ground_gamma0(points, name, scene.when)
    valid = valid_pixels(scene, 10)
    for name, values in zip(S1_NAMES, power, strict=True):
        seen = _speckled(scene, values, keyed_rng(seed, scene.scene_id, name)) if noise else values
        yield name.lower(), np.where(valid, seen, np.float32(S1_NODATA))


def _speckled(scene: SceneSpec, power: Values, rng: np.random.Generator) -> Values:
    """Speckle on signal and receiver noise alike; the noise's mean is subtracted, as the processor does."""
    x_m, _ = pixel_xy(scene, 10)
    ripple = (_NOISE_POWER * (1 + 0.3 * np.cos(2 * np.pi * x_m / 5000))).astype(np.float32)
    seen: Values = (power + ripple) * speckle(scene.shape_yx, rng) - ripple
    return np.maximum(seen, np.float32(_FLOOR_POWER))


def _gaussian_taps(sigma_px: float) -> Values:
    """Weights whose squares sum to 1, so that smoothing white noise keeps its variance."""
    at = np.arange(-4, 5)
    weights = np.exp(-(at**2) / (2 * sigma_px**2))
    taps: Values = (weights / np.sqrt((weights**2).sum())).astype(np.float32)
    return taps


def _smoothed(field: Values, taps: Values) -> Values:
    """`field` under a separable kernel, without its border: each side loses len(taps) - 1 in all."""
    n_rows, n_columns = (size - len(taps) + 1 for size in field.shape)
    down = sum(tap * field[at : at + n_rows] for at, tap in enumerate(taps))
    total: Values = sum(tap * down[:, at : at + n_columns] for at, tap in enumerate(taps))
    return total


def _blocks(n_rows: int) -> Iterator[slice]:
    """Rows a block at a time: bounded memory, and arrays that stay in the processor's cache."""
    return (slice(row, min(row + _BLOCK_ROWS, n_rows)) for row in range(0, n_rows, _BLOCK_ROWS))


def _exact(epsg: int, x_m: Array, y_m: Array) -> tuple[Array, Array]:
    """By PROJ; longitudes stay within half a turn of the zone's middle: none jumps at the antimeridian."""
    across, down = np.broadcast_arrays(x_m, y_m)
    lon, lat = to_lonlat(epsg).transform(across, down)
    middle = central_meridian(epsg)
    return (lon - middle + 180) % 360 - 180 + middle, lat


def _through_nodes(epsg: int, x_m: Array, y_m: Array) -> tuple[Array, Array]:
    """Chebyshev interpolation of `_exact` in x and y."""
    nodes = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
    x_unit, x_nodes = _to_unit(x_m, nodes)
    y_unit, y_nodes = _to_unit(y_m, nodes)
    to_series = np.linalg.inv(np.polynomial.chebyshev.chebvander(nodes, _NODES - 1))
    over_x, over_y = (np.polynomial.chebyshev.chebvander(u, _NODES - 1) @ to_series for u in (x_unit, y_unit))
    lon, lat = _exact(epsg, x_nodes[None, :], y_nodes[:, None])
    return over_y @ lon @ over_x.T, over_y @ lat @ over_x.T


def _to_unit(values: Array, nodes: Array) -> tuple[Array, Array]:
    """`values` on [-1, 1], and where `nodes` lie among them; a lone value gets a width of its own."""
    middle, half = (values[0] + values[-1]) / 2, max(abs(values[-1] - values[0]) / 2, 1.0)
    return (values - middle) / half, middle + half * nodes
