"""Polygons across 180 degrees: the ground stays the same, the longitudes become ordinary."""

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from ingest.areas.antimeridian import cut, joined, sides

pytestmark = pytest.mark.ingest


def _wrap(lon: float) -> float:
    return (lon + 180) % 360 - 180


@given(
    st.lists(st.tuples(st.floats(170.5, 189.5), st.floats(-40, 40)), min_size=3, max_size=7, unique=True),
    st.sampled_from(["continuous", "wrapped"]),
    st.tuples(st.floats(171, 189), st.floats(-39, 39)),
)
def test_a_cut_polygon_holds_the_same_ground(
    points: list[tuple[float, float]], written: str, probe: tuple[float, float]
) -> None:
    """Against the plain polygon in longitudes up to 190."""
    whole = shapely.MultiPoint(points).convex_hull
    if whole.geom_type != "Polygon" or whole.area < 1e-3 or whole.exterior.distance(shapely.Point(probe)) < 1e-6:
        return
    given_ring = [(lon if written == "continuous" else _wrap(lon), lat) for lon, lat in whole.exterior.coords]
    parts = cut(shapely.Polygon(given_ring))
    assert parts.is_valid
    assert parts.area == pytest.approx(whole.area)
    assert -180 <= parts.bounds[0] <= parts.bounds[2] <= 180
    assert shapely.contains_xy(parts, _wrap(probe[0]), probe[1]) == shapely.contains_xy(whole, *probe)
    assert joined(parts).area == pytest.approx(whole.area)


def test_holes_stay_holes_on_either_side() -> None:
    shell = [(170, 0), (-170, 0), (-170, 20), (170, 20), (170, 0)]
    for west in (171.0, 178.0, -175.0):
        hole = [(west, 5), (_wrap(west + 4), 5), (_wrap(west + 4), 10), (west, 10), (west, 5)]
        parts = cut(shapely.Polygon(shell, [hole]))
        assert parts.area == pytest.approx(20 * 20 - 4 * 5)
        assert not shapely.contains_xy(parts, _wrap(west + 2), 7)


def test_parts_of_a_multipolygon_are_cut_one_by_one() -> None:
    plain = shapely.box(10, 0, 11, 1)
    crossing = shapely.Polygon([(179, 0), (-179, 0), (-179, 1), (179, 1)])
    parts = cut(shapely.MultiPolygon([plain, crossing]))
    assert parts.area == pytest.approx(3)
    assert parts.covers(plain)


@pytest.mark.parametrize("box", [(10, 0, 11, 1), (-180, -60, 180, 80), (-180, 0, -170, 1), (-90, 0, 90, 1)])
def test_what_does_not_cross_is_left_alone(box: tuple[float, float, float, float]) -> None:
    area = shapely.box(*box)
    assert cut(area) is area
    assert sides(area) == [area]


def test_sides_have_bounds_of_their_own() -> None:
    area = cut(shapely.Polygon([(170, 0), (-160, 0), (-160, 1), (170, 1)]))
    assert sorted(side.bounds for side in sides(area)) == [(-180, 0, -160, 1), (170, 0, 180, 1)]
    assert joined(area).bounds == (170, 0, 200, 1)


def test_a_ring_round_a_pole_is_no_polygon() -> None:
    with pytest.raises(ValueError, match="round a pole"):
        cut(shapely.Polygon([(-170, 70), (-50, 70), (70, 70), (175, 70)]))


def test_a_ring_that_crosses_itself_is_refused_on_the_antimeridian_too() -> None:
    with pytest.raises(ValueError, match="Self-intersection"):
        cut(shapely.Polygon([(179, 0), (-179, 1), (-179, 0), (179, 1)]))
