"""An Earth whose every point has a known value: an analytic function of (longitude, latitude, channel, time).

In: longitude and latitude arrays in degrees (WGS 84), a band or polarisation, a date. Out: arrays of their
shape.

Every field is a sum of plane waves in the Earth-centred frame, read on the unit sphere. So it is
single-valued over the whole globe, without a seam at the antimeridian, a zone border or a pole, and no
wavelength on the ground is shorter than the wave's own. Classes meet in soft borders some 60 m wide and the
finest texture has 140 m: of the power of a scene 1e-3 lies beyond 120 m and 1e-5 beyond 60 m, which keeps
the sample at a pixel centre a fair value of a 10, 20 or 60 m pixel. S1 and S2 see the same classes, parcels
and texture.

Not here: pixels, grids and noise (render.py). Class values: medians measured on TerraMesh
(`reference/data.md` 5.4).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.errors import UsageError

Array = npt.NDArray[np.float64]
"""Coordinates: float32 would be metres off."""
Values = npt.NDArray[np.float32]
"""What is there: float32 is good to 1e-6 of it, a hundredth of a digital number, at a fifth of the cost."""
Ends = Sequence[tuple[float, float]]

CLASSES: tuple[str, ...] = ("water", "forest", "crops", "grass", "bare", "built")
"""Land cover classes, in the order of `Ground.cover`."""

CHANNELS: tuple[str, ...] = S2_NAMES + S1_NAMES
"""Column order of the value tables: S2 reflectance x 10000, then VV and VH in dB."""

EARTH_RADIUS_M = 6_371_000.0
_DEGREE_M = np.pi * EARTH_RADIUS_M / 180
_CLOUD_HEIGHT_M = 1200.0
_CIRRUS_OPACITY = 0.12
_LOWEST_SUN = 0.34

_GREEN: dict[str, tuple[float, ...]] = {
    "water": (540, 529, 664, 415, 458, 255, 267, 197, 229, 325, 186, 125, -17.2, -22.1),
    "forest": (175, 175, 341, 186, 638, 1989, 2407, 2570, 2674, 2676, 1113, 454, -7.4, -13.6),
    "crops": (113, 121, 444, 369, 903, 1835, 2078, 2318, 2395, 2431, 1736, 971, -10.0, -17.0),
    "grass": (289, 294, 464, 518, 928, 1529, 1764, 1925, 2084, 2171, 1873, 1114, -10.4, -15.0),
    "bare": (1944, 2530, 3050, 3382, 3689, 3686, 3785, 3908, 3944, 3236, 4845, 4615, -16.9, -21.7),
    "built": (393, 461, 603, 738, 1025, 1580, 1823, 2010, 2063, 2071, 2005, 1464, -11.5, -17.0),
    "snow": (7041, 7186, 6440, 6624, 6952, 6918, 6718, 7088, 6576, 6301, 1140, 1205, -14.4, -21.7),
}
_DRY: dict[str, tuple[float, ...]] = _GREEN | {
    "forest": (66, 52, 260, 282, 634, 1105, 1331, 1544, 1642, 1741, 1287, 780, -7.9, -13.1),
    "crops": (665, 782, 1116, 1564, 1974, 2356, 2589, 2652, 2919, 2917, 3649, 2803, -14.0, -20.2),
    "grass": (632, 733, 1046, 1440, 1873, 2271, 2507, 2570, 2840, 2827, 3597, 2732, -12.5, -17.5),
}
_CLOUD = dict.fromkeys(S2_NAMES, 0.62) | {"B11": 0.36, "B12": 0.28}
_TEXTURE_S2 = (0.03, 0.10, 0.08, 0.08, 0.06, 0.18)
_TEXTURE_S1 = (0.05, 0.12, 0.15, 0.12, 0.10, 0.20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What does not change with time at some points; all arrays float32 of the points' shape."""

    lat: Values
    """Degrees north."""
    hemisphere: Values
    """Dimensionless, 1 in the north, -1 in the south, 0 on the equator: how strongly seasons swing."""
    cover: Values
    """Share in [0, 1], shape (6, ...): `CLASSES`, sums to 1."""
    height: Values
    """Dimensionless, mean 0, std 1 over the Earth: water lies low, snow high."""
    parcel: Values
    """Dimensionless in [-1, 1]: constant inside a field of crops, with soft borders; shifts its season."""
    texture: Values
    """Dimensionless, mean 0, std 1 over the Earth; wavelengths 140 to 320 m."""


def keyed_rng(*parts: object) -> np.random.Generator:
    """A generator that depends on `parts` alone: the same numbers in any process and any order of scenes."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def ground(lon: npt.ArrayLike, lat: npt.ArrayLike, *, seed: int = 0) -> Ground:
    """Land cover, height, parcels and texture.

    Args:
        lon: Degrees east, WGS 84; any shape, any winding (181 is -179).
        lat: Degrees north, same shape.
        seed: Which Earth.
    """
    xyz = _unit_xyz(lon, lat)
    height = _field(xyz, _waves(seed, "height", (1500.0, 6000.0), 7))
    parcel = _parcels(xyz, seed)
    return Ground(
        lat=np.asarray(lat, np.float32),
        hemisphere=np.tanh(np.asarray(lat, np.float32) / 15),
        cover=_cover(xyz, height, seed),
        height=height,
        parcel=parcel,
        texture=_field(xyz, _waves(seed, "texture", (140.0, 320.0), 9)),
    )


def land_cover(lon: npt.ArrayLike, lat: npt.ArrayLike, *, seed: int = 0) -> Values:
    """Share of each class, shape (6, ...) in the order of `CLASSES`; sums to 1."""
    return ground(lon, lat, seed=seed).cover


def reflectance(lon: npt.ArrayLike, lat: npt.ArrayLike, band: str, when: date, *, seed: int = 0) -> Values:
    """True clear-sky surface reflectance, without noise.

    Args:
        lon: Degrees east, WGS 84.
        lat: Degrees north, same shape.
        band: An S2 band, `B01` to `B12` or `B8A`.
        when: Day of the acquisition (a datetime is read as its day).
        seed: Which Earth.

    Returns:
        float32 array of the points' shape, 0 to about 0.8.

    Raises:
        UsageError: no such band.
    """
    return ground_reflectance(ground(lon, lat, seed=seed), band, when)


def gamma0(lon: npt.ArrayLike, lat: npt.ArrayLike, polarisation: str, when: date, *, seed: int = 0) -> Values:
    """True gamma nought in linear power, no speckle; `polarisation` is `VV` or `VH`, the rest as above."""
    return ground_gamma0(ground(lon, lat, seed=seed), polarisation, when)


def ground_reflectance(points: Ground, band: str, when: date) -> Values:
    """`reflectance` at points whose ground is known already: twelve bands share it."""
    column = _column(band, S2_NAMES)
    ends: Ends = [(1e-4 * _GREEN[name][column], 1e-4 * _DRY[name][column]) for name in (*CLASSES, "snow")]
    return _mix(points, when, ends, _TEXTURE_S2)


def ground_gamma0(points: Ground, polarisation: str, when: date) -> Values:
    """`gamma0` at points whose ground is known already."""
    column = _column(polarisation, S1_NAMES)
    ends: Ends = [(_power(_GREEN[name][column]), _power(_DRY[name][column])) for name in (*CLASSES, "snow")]
    return _mix(points, when, ends, _TEXTURE_S1)


def snow_cover(points: Ground, when: date) -> Values:
    """Share of the ground under snow, in [0, 1]: high latitude, winter, high ground first; none on water."""
    cold: Values = np.abs(points.lat) * (0.5 - 0.5 * _season(points, when)) - 51
    snow: Values = _sigmoid(cold * (1 / 2.4) + points.height * 3.75) * (1 - points.cover[0])
    return snow


def cloud_cover(lon: Array, lat: Array, when: date, amount: float, *, seed: int = 0) -> Values:
    """Opacity of the clouds of a day, in [0, 1].

    Args:
        lon: Degrees east, WGS 84.
        lat: Degrees north, same shape.
        when: The day: each has clouds of its own.
        amount: Share of the Earth with an opacity above 0.12 (cirrus counts); an AOI of a few km differs.
        seed: Which Earth.
    """
    if amount <= 0:
        return np.zeros(np.shape(lon), np.float32)
    threshold = NormalDist().inv_cdf(1 - min(amount, 0.999))
    clouds = _field(_unit_xyz(lon, lat), _waves(seed, f"cloud {when.toordinal()}", (900.0, 4000.0), 12))
    at_threshold = math.log(1 / _CIRRUS_OPACITY - 1)
    return _sigmoid((clouds - threshold) / 0.25 - at_threshold)


def cloud_shadow(lon: Array, lat: Array, when: date, amount: float, *, seed: int = 0) -> Values:
    """Opacity between a point and the sun: `cloud_cover` displaced towards the sun; the same arguments."""
    east, north, up = _towards_sun(lat, when)
    reach_deg = (_CLOUD_HEIGHT_M / _DEGREE_M) / np.maximum(up, _LOWEST_SUN)
    east_deg = reach_deg * east / np.cos(np.radians(lat, dtype=np.float32))
    return cloud_cover(lon + east_deg, lat + reach_deg * north, when, amount, seed=seed)


def under_clouds(clear: Values, band: str, opacity: Values, shadow: Values) -> Values:
    """Reflectance that the sensor sees: `clear` under shadow, and clouds over it. All arrays of one shape."""
    lit = clear * (1 - 0.65 * shadow * (1 - opacity))
    return lit * (1 - opacity) + _CLOUD[band] * opacity


def sun(lat: float, when: date) -> tuple[float, float]:
    """Zenith and azimuth of the sun in degrees at 10:30 local solar time, Sentinel-2's hour."""
    east, north, up = _towards_sun(np.array(lat), when)
    return float(np.degrees(np.arccos(up))), float(np.degrees(np.arctan2(east, north)) % 360)


def _towards_sun(lat: Array, when: date) -> tuple[float, Values, Values]:
    """East, north and up of the unit vector to the sun at 10:30 local solar time; textbook astronomy."""
    tilt = math.radians(-23.44) * math.cos(2 * math.pi * (when.timetuple().tm_yday + 10) / 365.25)
    hour, phi = math.radians(-22.5), np.radians(lat)
    sin_phi: Values = np.sin(phi.astype(np.float32))
    cos_phi: Values = np.cos(phi.astype(np.float32))
    high, across = np.float32(math.sin(tilt)), np.float32(math.cos(tilt) * math.cos(hour))
    north, up = cos_phi * high - sin_phi * across, sin_phi * high + cos_phi * across
    return -math.cos(tilt) * math.sin(hour), north, up


def _column(channel: str, known: tuple[str, ...]) -> int:
    if channel not in known:
        raise UsageError(f"the synthetic Earth has no channel {channel!r}. Choose one of {', '.join(known)}.")
    return CHANNELS.index(channel)


def _power(value_db: float) -> float:
    return math.pow(10, value_db / 10)


def _mix(points: Ground, when: date, ends: Ends, roughness: Sequence[float]) -> Values:
    """Sum over classes of share x value x texture, then snow; `ends`: green and dry value."""
    total = np.zeros_like(points.height)
    for index, leaf in enumerate(_greenness(points, when)):
        green, dry = ends[index]
        value = dry + (green - dry) * leaf
        total += points.cover[index] * value * (1 + roughness[index] * points.texture)
    snow = snow_cover(points, when)
    mixed: Values = total * (1 - snow) + ends[-1][0] * snow
    return mixed


def _greenness(points: Ground, when: date) -> tuple[Values | float, ...]:
    """How green each class is, 0 to 1, in the order of `CLASSES`; one without leaves has one value anyway."""
    season = _season(points, when)
    crops = 0.5 + 0.3 * _season(points, when, 60 * points.parcel) + 0.2 * points.parcel
    return 0.0, _sigmoid(3 * season + 0.5), crops, 0.5 + 0.35 * season + 0.1 * points.parcel, 0.0, 0.0


def _season(points: Ground, when: date, delay_days: Values | float = 0.0) -> Values:
    """1 in high summer, -1 in deep winter, 0 near the equator; July is summer in the north."""
    year = (when.timetuple().tm_yday - 190 - delay_days) * (2 * math.pi / 365.25)
    season: Values = points.hemisphere * np.cos(year, dtype=np.float32)
    return season


def _cover(xyz: Array, height: Values, seed: int) -> Values:
    """Classes by precedence: each takes its share of what those before it have left."""
    river = _field(xyz, _waves(seed, "river", (2500.0, 7000.0), 5))
    woods = _field(xyz, _waves(seed, "woods", (700.0, 2500.0), 8))
    works = _field(xyz, _waves(seed, "works", (800.0, 2500.0), 6))
    dry = 1 - np.exp(-((river / 0.12) ** 2))
    shares = {"water": 1 - dry * _sigmoid((height + 1.3) / 0.1)}
    left = 1 - shares["water"]
    order = {"built": works - 1.1, "forest": woods - 0.45, "bare": -works - 1.3, "grass": -woods - 0.7}
    for name, above in order.items():
        share = _sigmoid(above / 0.12)
        shares[name], left = left * share, left * (1 - share)
    shares["crops"] = left
    return np.stack([shares[name] for name in CLASSES])


def _parcels(xyz: Array, seed: int) -> Values:
    """Mean of soft square waves: their zero lines cut the plane into fields, each of about one value."""
    vectors, phases = _waves(seed, "parcel", (450.0, 1000.0), 5)
    total = np.zeros(xyz.shape[1:], np.float32)
    for vector, phase in zip(vectors, phases, strict=True):
        slope = float(EARTH_RADIUS_M / (2 * np.pi * np.linalg.norm(vector) * 32.0))
        total += np.tanh(slope * np.sin(_phase(xyz, vector, phase)))
    parcels: Values = total * (1 / len(vectors))
    return parcels


@lru_cache(maxsize=256)
def _waves(seed: int, name: str, wavelengths_m: tuple[float, float], n: int) -> tuple[Array, Array]:
    """Wave vectors (n, 3) in turns per Earth radius, and phases (n,) in turns; directions are even."""
    rng = keyed_rng(seed, name)
    direction = rng.normal(size=(n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    turns = EARTH_RADIUS_M / np.geomspace(*wavelengths_m, n)
    return direction * turns[:, None], rng.uniform(0, 1, n)


def _field(xyz: Array, waves: tuple[Array, Array]) -> Values:
    """Sum of equal waves with variance 1."""
    total = np.zeros(xyz.shape[1:], np.float32)
    for vector, phase in zip(*waves, strict=True):
        total += np.cos(_phase(xyz, vector, phase))
    field: Values = total * math.sqrt(2 / len(waves[1]))
    return field


def _phase(xyz: Array, vector: Array, phase: float) -> Values:
    """Radians in [-pi, pi]: whole turns are taken off in float64, and what is left fits float32."""
    turns = vector[0] * xyz[0]
    turns += vector[1] * xyz[1]
    turns += vector[2] * xyz[2]
    turns += phase
    turns -= np.rint(turns)
    angle: Values = turns.astype(np.float32) * np.float32(2 * np.pi)
    return angle


def _unit_xyz(lon: npt.ArrayLike, lat: npt.ArrayLike) -> Array:
    """(3, ...) unit vectors: 0.5 % from true metres, as the Earth is not a sphere."""
    lam, phi = np.radians(np.asarray(lon, np.float64)), np.radians(np.asarray(lat, np.float64))
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])


def _sigmoid(x: Values) -> Values:
    soft: Values = 0.5 + 0.5 * np.tanh(0.5 * x)
    return soft
