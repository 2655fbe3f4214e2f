"""Which scenes a synthetic Earth holds: dates, sensors, orbits, grids, footprints. No pixel is computed here.

In: `EarthOptions`. Out: `SceneSpec`s, sorted by time. The choice meets an ingest with what real catalogs
hold: both processing baselines, clear and overcast days, a swath edge, two radar orbits on a grid of their
own, a day without radar, and the same acquisition once more in the neighbouring UTM zone.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np
import shapely
from pyproj import Transformer
from shapely import affinity
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.polygon import orient

from ingest.areas.grid import utm_epsg
from ingest.synthetic.landscape import Array
from pipeline.errors import UsageError

DEFAULT_DATES = (date(2021, 7, 1), date(2022, 7, 26))
"""Summer to summer, across the change of the processing baseline on 2022-01-25."""

MARGIN_M = 660
"""Metres written around the AOI's box: a 120 px cell whose centre is in the AOI lies within it."""

_BASELINE_0400 = date(2022, 1, 25)
_REVISIT_DAYS = 5
_CLOUD_AMOUNTS = (0.03, 0.92, 0.06, 0.25)
_S1_VISITS: dict[int, tuple[tuple["OrbitState", int], ...]] = {
    0: (("ascending", 0), ("descending", 2)),
    1: (("descending", -1),),
    2: (("ascending", 0),),
    3: (("descending", -2),),
}
_S1_TILT_DEG = 8.0
_S1_RELATIVE_ORBIT = {"ascending": 117, "descending": 22}
_LARGEST_SIDE_M = 60_000
_FIRST_YEAR, _LAST_YEAR = 1970, 2200

OrbitState = Literal["ascending", "descending"]
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class EarthOptions:
    """What was asked for; equal options give identical bytes."""

    aoi_wkt: str
    """WKT of a polygon or multipolygon, longitude latitude in degrees (WGS 84)."""
    first: date
    """UTC day of the first S2 acquisition."""
    last: date
    """UTC day that no acquisition is after."""
    n_dates: int
    """Number of S2 dates wanted; fewer where the range has fewer five-day revisits."""
    seed: int
    """Which Earth."""
    noise: bool
    """False leaves out clouds, speckle and sensor noise: every pixel is the landscape's own value."""

    @property
    def aoi(self) -> Polygon | MultiPolygon:
        """The AOI with longitudes unwrapped, so that one across the antimeridian is in one piece."""
        return _unwrapped(self.aoi_wkt)


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSpec:
    """One acquisition of one sensor on one grid."""

    scene_id: str
    """As Planetary Computer names it."""
    sensor: Literal["s1", "s2", "label"]
    """Which instrument; `label`: none, the land cover itself."""
    when: datetime
    """UTC instant of the acquisition."""
    epsg: int
    """EPSG code of the UTM zone of the grid."""
    origin_xy_m: tuple[int, int]
    """Metres. Left and top edge of the grid: multiples of 60 (S2) or of 10 but not of 60 (S1)."""
    shape_yx: tuple[int, int]
    """Rows and columns of the 10 m grid; multiples of 6 for S2."""
    footprint_xy_m: tuple[tuple[float, float], ...]
    """Metres. Convex ring, counterclockwise, not closed: a pixel has data where its centre is inside."""
    cloud_amount: float
    """Share in [0, 1], handed to `landscape.cloud_cover`; 0 for S1."""
    baseline: str
    """Processing baseline, `05.09`; empty for S1."""
    platform: str
    """`A` or `B`: the unit of the constellation."""
    orbit_state: OrbitState
    """Flight direction."""
    relative_orbit: int
    """Track number within the repeat cycle."""
    absolute_orbit: int
    """Orbits since launch, consistent with the relative orbit."""
    mgrs_tile: str
    """The 100 km square of the grid's centre, `33TWL`; empty for S1."""

    @property
    def collection(self) -> str:
        """STAC collection id, as Planetary Computer has it."""
        return {"s2": "sentinel-2-l2a", "s1": "sentinel-1-rtc", "label": "land-cover"}[self.sensor]

    @property
    def dn_offset(self) -> int:
        """Digital number that is added to reflectance x 10000: 1000 from baseline 04.00 on."""
        return 1000 if self.baseline >= "04.00" else 0


def earth_scenes(options: EarthOptions) -> tuple[SceneSpec, ...]:
    """Every scene of the Earth, by time.

    Raises:
        UsageError: the AOI is empty, beyond 80 degrees or wider than 60 km, or the dates are reversed.
    """
    _check(options)
    dates = _s2_dates(options)
    other_zone = 2 if len(dates) > 3 else 0
    specs = [_s2_scene(options, day, index) for index, day in enumerate(dates)]
    specs.append(_s2_scene(options, dates[other_zone], other_zone, neighbour=True))
    specs.extend(_s1_scenes(options, dates))
    specs.append(_cover(specs[0]))
    return tuple(sorted(specs, key=lambda spec: (spec.when, spec.scene_id)))


def inside(footprint_xy_m: tuple[tuple[float, float], ...], x_m: Array, y_m: Array) -> np.ndarray:
    """Boolean array: which points lie in a convex counterclockwise ring; `x_m` and `y_m` broadcast."""
    ring = (*footprint_xy_m, footprint_xy_m[0])
    held = np.ones(np.broadcast_shapes(x_m.shape, y_m.shape), bool)
    for (x0, y0), (x1, y1) in pairwise(ring):
        held &= (x1 - x0) * (y_m - y0) - (y1 - y0) * (x_m - x0) >= 0
    return held


def footprint_lonlat(scene: SceneSpec) -> Polygon | MultiPolygon:
    """The data footprint in degrees, a vertex each 500 m or less; split where it crosses the antimeridian."""
    ring = shapely.segmentize(Polygon(scene.footprint_xy_m), 500.0).exterior.coords.xy
    lon, lat = to_lonlat(scene.epsg).transform(*ring)
    lon = central_meridian(scene.epsg) + (np.asarray(lon) - central_meridian(scene.epsg) + 180) % 360 - 180
    polygon = Polygon(np.round(np.column_stack([lon, lat]), 9))
    worlds = {turn: shapely.box(-180 - turn, -90, 180 - turn, 90) for turn in (-360, 0, 360)}
    parts = {turn: polygon.intersection(world) for turn, world in worlds.items()}
    moved = [orient(affinity.translate(part, turn)) for turn, part in parts.items() if part.area > 0]
    return moved[0] if len(moved) == 1 else MultiPolygon(moved)


@lru_cache(maxsize=16)
def to_lonlat(epsg: int) -> Transformer:
    """From x, y of `epsg` to longitude, latitude (WGS 84)."""
    return Transformer.from_crs(epsg, 4326, always_xy=True)


def central_meridian(epsg: int) -> float:
    """Degrees east of a UTM zone's middle."""
    return epsg % 100 * 6 - 183.0


@lru_cache(maxsize=16)
def _unwrapped(aoi_wkt: str) -> Polygon | MultiPolygon:
    aoi = shapely.from_wkt(aoi_wkt)
    if aoi.is_empty or aoi.bounds[2] - aoi.bounds[0] <= 180:
        return aoi
    return shapely.transform(aoi, lambda xy: np.column_stack([xy[:, 0] % 360, xy[:, 1]]))


def _check(options: EarthOptions) -> None:
    if options.last < options.first or options.n_dates < 1:
        asked = f"{options.n_dates} dates from {options.first} to {options.last}"
        raise UsageError(f"no acquisition fits {asked}. Give at least one date, and START not after END.")
    if not (options.first.year >= _FIRST_YEAR and options.last.year <= _LAST_YEAR):
        raise UsageError(f"--dates {options.first}/{options.last}: give days of {_FIRST_YEAR} to {_LAST_YEAR}.")
    if not abs(options.seed) < 2**63:
        raise UsageError(f"--seed {options.seed}: use a number below 2^63.")
    if options.aoi.is_empty or options.aoi.area == 0:
        wkt = options.aoi_wkt[:80]
        raise UsageError(f"the AOI {wkt} covers no ground. Give a polygon in longitude and latitude.")
    bounds = options.aoi.bounds
    if max(abs(bounds[1]), abs(bounds[3])) > 80:
        raise UsageError(f"the AOI {bounds} reaches beyond 80 degrees, where UTM ends. Choose another place.")
    left, bottom, right, top = _bounds_m(options.aoi, _own_zone(options.aoi))
    if max(right - left, top - bottom) > _LARGEST_SIDE_M:
        size = f"{(right - left) / 1000:.0f} x {(top - bottom) / 1000:.0f} km"
        raise UsageError(f"the AOI's box of {size} is too large. Keep a synthetic Earth within 60 km a side.")


def _s2_dates(options: EarthOptions) -> list[date]:
    """`n_dates` of the five-day revisits from `first` on, spread over the range."""
    n_visits = (options.last - options.first).days // _REVISIT_DAYS + 1
    visits = sorted({round(at) for at in np.linspace(0, n_visits - 1, options.n_dates)})
    return [options.first + timedelta(days=_REVISIT_DAYS * visit) for visit in visits]


def _s2_scene(options: EarthOptions, day: date, index: int, *, neighbour: bool = False) -> SceneSpec:
    zone = _neighbour_zone(options.aoi) if neighbour else _own_zone(options.aoi)
    bounds = _snapped(_grown(_bounds_m(options.aoi, zone), MARGIN_M), 60)
    left, bottom, right, top = bounds
    when = _local(day, 10.5, options.aoi)
    tile = _mgrs(zone, ((left + right) / 2, (bottom + top) / 2), options.aoi)
    platform = "AB"[day.toordinal() // _REVISIT_DAYS % 2]
    baseline = "03.01" if day < _BASELINE_0400 else "05.09"
    stamps = f"{when:%Y%m%dT%H%M%S}_R022_T{tile}_{when + timedelta(hours=6):%Y%m%dT%H%M%S}"
    return SceneSpec(
        scene_id=f"S2{platform}_MSIL2A_{stamps}",
        sensor="s2",
        when=when,
        epsg=zone,
        origin_xy_m=(int(left), int(top)),
        shape_yx=(int(top - bottom) // 10, int(right - left) // 10),
        footprint_xy_m=_swath_edge(bounds) if index == 0 and not neighbour else _ring(bounds),
        cloud_amount=_CLOUD_AMOUNTS[index % 4] if options.noise else 0.0,
        baseline=baseline,
        platform=platform,
        orbit_state="descending",
        relative_orbit=22,
        absolute_orbit=_absolute_orbit(when, 22, cycle=143, first={"A": 141, "B": 27}[platform]),
        mgrs_tile=tile,
    )


def _cover(like: SceneSpec) -> SceneSpec:
    """The land cover on the grid of an S2 scene, all of it."""
    left, top = like.origin_xy_m
    bounds = (left, top - 10 * like.shape_yx[0], left + 10 * like.shape_yx[1], top)
    return replace(
        like, scene_id="LAND_COVER", sensor="label", footprint_xy_m=_ring(bounds), cloud_amount=0.0, baseline=""
    )


def _s1_scenes(options: EarthOptions, dates: list[date]) -> Iterator[SceneSpec]:
    """Radar within two days of each S2 date; of three dates or more the last has none near."""
    for index, day in enumerate(dates if len(dates) < 3 else dates[:-1]):
        for orbit_state, days in _S1_VISITS[index % 4]:
            visit = day + timedelta(days=days)
            if visit <= options.last:
                yield _s1_scene(options, visit, orbit_state, partial=days == 2)


def _s1_scene(options: EarthOptions, day: date, orbit_state: OrbitState, *, partial: bool) -> SceneSpec:
    zone = _own_zone(options.aoi)
    tilt_deg = _S1_TILT_DEG if orbit_state == "ascending" else -_S1_TILT_DEG
    covered = _grown(_bounds_m(options.aoi, zone), MARGIN_M)
    footprint = _tilted(covered, tilt_deg, shift=0.35 if partial else 0.0)
    left, bottom, right, top = _off_sixty(_snapped(Polygon(footprint).bounds, 10))
    when = _local(day, 18.0 if orbit_state == "ascending" else 6.0, options.aoi)
    relative_orbit = _S1_RELATIVE_ORBIT[orbit_state]
    absolute_orbit = _absolute_orbit(when, relative_orbit, cycle=175, first=73)
    stamps = f"{when:%Y%m%dT%H%M%S}_{when + timedelta(seconds=25):%Y%m%dT%H%M%S}"
    return SceneSpec(
        scene_id=f"S1A_IW_GRDH_1SDV_{stamps}_{absolute_orbit:06d}_{absolute_orbit * 8 % 0xFFFFFF:06X}_rtc",
        sensor="s1",
        when=when,
        epsg=zone,
        origin_xy_m=(int(left), int(top)),
        shape_yx=(int(top - bottom) // 10, int(right - left) // 10),
        footprint_xy_m=footprint,
        cloud_amount=0.0,
        baseline="",
        platform="A",
        orbit_state=orbit_state,
        relative_orbit=relative_orbit,
        absolute_orbit=absolute_orbit,
        mgrs_tile="",
    )


def _absolute_orbit(when: datetime, relative_orbit: int, *, cycle: int, first: int) -> int:
    """An orbit near `when` on the track: relative = (absolute - first) % cycle + 1, checked on real items."""
    days_a_cycle = {143: 10, 175: 12}[cycle]
    cycles = (when.date() - date(2014, 4, 3)).days // days_a_cycle
    return first + relative_orbit - 1 + cycle * cycles


def _own_zone(aoi: Polygon | MultiPolygon) -> int:
    return utm_epsg((aoi.centroid.x + 180) % 360 - 180, aoi.centroid.y)


def _neighbour_zone(aoi: Polygon | MultiPolygon) -> int:
    """The zone on the nearer side."""
    own = _own_zone(aoi)
    east = (aoi.centroid.x - central_meridian(own) + 180) % 360 >= 180
    return own // 100 * 100 + (own % 100 - 1 + (1 if east else -1)) % 60 + 1


def _bounds_m(aoi: Polygon | MultiPolygon, epsg: int) -> Bounds:
    """The AOI's box in metres of `epsg`; the ring is densified, as straight lines bend."""
    dense = shapely.segmentize(aoi, 0.01)
    back = Transformer.from_crs(4326, epsg, always_xy=True)
    bounds: Bounds = shapely.transform(dense, lambda xy: np.column_stack(back.transform(*xy.T))).bounds
    return bounds


def _grown(bounds: Bounds, by_m: float) -> Bounds:
    left, bottom, right, top = bounds
    return left - by_m, bottom - by_m, right + by_m, top + by_m


def _snapped(bounds: Bounds, pitch_m: int) -> Bounds:
    """Outwards to multiples of `pitch_m`."""
    low = [math.floor(value / pitch_m) * float(pitch_m) for value in bounds[:2]]
    high = [math.ceil(value / pitch_m) * float(pitch_m) for value in bounds[2:]]
    return low[0], low[1], high[0], high[1]


def _off_sixty(bounds: Bounds) -> Bounds:
    """Ten metres more where an edge falls on the S2 lattice: RTC grids do not share it."""
    left, bottom, right, top = bounds
    return left - 10 * (left % 60 == 0), bottom, right, top + 10 * (top % 60 == 0)


def _ring(bounds: Bounds) -> tuple[tuple[float, float], ...]:
    left, bottom, right, top = bounds
    return ((left, bottom), (right, bottom), (right, top), (left, top))


def _swath_edge(bounds: Bounds) -> tuple[tuple[float, float], ...]:
    """The box without its north-western corner."""
    left, bottom, right, top = bounds
    across, down = left + 0.35 * (right - left), bottom + 0.25 * (top - bottom)
    return ((left, bottom), (right, bottom), (right, top), (across, top), (left, down))


def _tilted(bounds: Bounds, tilt_deg: float, *, shift: float) -> tuple[tuple[float, float], ...]:
    """The smallest rectangle at `tilt_deg` around the box, moved across by `shift` of its width."""
    left, bottom, right, top = bounds
    cos, sin = np.cos(np.radians(tilt_deg)), np.sin(np.radians(tilt_deg))
    half_u = ((right - left) * cos + (top - bottom) * abs(sin)) / 2
    half_v = ((right - left) * abs(sin) + (top - bottom) * cos) / 2
    middle = 2 * half_u * shift
    corners = np.array(_ring((middle - half_u, -half_v, middle + half_u, half_v)))
    center = np.array([(left + right) / 2, (bottom + top) / 2])
    turned = corners @ np.array([[cos, sin], [-sin, cos]]) + center
    return tuple((round(float(x), 3), round(float(y), 3)) for x, y in turned)


def _local(day: date, hour: float, aoi: Polygon | MultiPolygon) -> datetime:
    """UTC instant on `day` at a local solar hour."""
    utc_hour = (hour - aoi.centroid.x / 15) % 24
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return midnight + timedelta(seconds=round(utc_hour * 3600) % 86400)


def _mgrs(epsg: int, center_xy_m: tuple[float, float], aoi: Polygon | MultiPolygon) -> str:
    """The 100 km square; columns are clamped, as a far neighbour zone has none."""
    zone = epsg % 100
    band = "CDEFGHJKLMNPQRSTUVWX"[int(np.clip((aoi.centroid.y + 80) // 8, 0, 19))]
    columns = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")[zone % 3]
    column = columns[int(np.clip(center_xy_m[0] // 100_000 - 1, 0, 7))]
    row = "ABCDEFGHJKLMNPQRSTUV"[int(center_xy_m[1] // 100_000 + (5 if zone % 2 == 0 else 0)) % 20]
    return f"{zone:02d}{band}{column}{row}"
