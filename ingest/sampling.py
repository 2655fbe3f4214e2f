"""A number of cells drawn from an area, by land, classes, points or blocks: the same ones for the same seed.

A small area's cells are listed and ranked by a hash of seed and id. Of a large one (a continent, the globe) no list is
made: positions are drawn evenly over the ground and moved to the cell that holds them; each cell counts once. Either
way a larger number only adds to a smaller one (but for the rounding of shares), and the order in which areas are given
changes nothing.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from ingest.areas import antimeridian
from ingest.areas.block_grid import Block, block_cells, blocks_at, cells_of
from ingest.areas.grid import PIXEL_M, Cell, by_zone, count_of, footprints, lattice_cells
from ingest.areas.positions import Candidates, in_zones, scattered, snapped, spread
from ingest.request import Request, Sampling
from ingest.weights import classes_of, points_of, weights_of
from pipeline.errors import UsageError

LISTED = 300_000
"""Cells of an area that are listed; from larger areas positions are drawn."""
BATCH = 2**16
"""Positions drawn together."""
MOST_BATCHES = 64
"""After so many the search for cells ends."""
_NO_CLASS = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """Where cells may lie, and what is asked of them."""

    request: Request
    sampling: Sampling
    area: BaseGeometry


def draw(request: Request, sampling: Sampling) -> list[Cell]:
    """The cells of a sampled request, sorted by id.

    Raises:
        UsageError: the area has fewer, or the sampler's file cannot be used.
    """
    site = _Site(request=request, sampling=sampling, area=ground([area.geometry for area in request.areas]))
    listed = sampling.sampler != "points" and count_of(site.area, request.chip_px) <= LISTED
    found = {
        "grid": _weighted,
        "land": _weighted,
        "points": _weighted,
        "classes": _stratified,
        "blocks": _by_block,
    }[sampling.sampler](site, listed=listed)
    return sorted(found, key=lambda cell: cell.cell_id)


def ground(areas: Iterable[BaseGeometry]) -> BaseGeometry:
    """What areas have together, the same in whatever order they come."""
    return shapely.normalize(shapely.union_all(sorted(areas, key=lambda area: area.wkb)))


def search_boxes(cells: Sequence[Cell]) -> list[BaseGeometry]:
    """Degrees. A box for all cells of a degree: where a catalog is asked, in place of an area that they only dot."""
    groups: dict[tuple[int, int], list[BaseGeometry]] = {}
    for outline in footprints(cells):
        for side in antimeridian.sides(outline):
            west, south = side.bounds[:2]
            groups.setdefault((math.floor(west), math.floor(south)), []).append(side)
    return [shapely.box(*shapely.total_bounds(groups[place])) for place in sorted(groups)]


def quotas(count: int, shares: Mapping[int, float]) -> dict[int, int]:
    """`count` shared out by largest remainder; the lower class first where remainders are equal."""
    whole = sum(shares.values())
    exact = {name: count * share / whole for name, share in shares.items()}
    given = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (given[name] - exact[name], name))
    for name in by_remainder[: count - sum(given.values())]:
        given[name] += 1
    return given


def _weighted(site: _Site, *, listed: bool) -> list[Cell]:
    """Cells with a chance in proportion to their weight, none twice."""
    weight = weights_of(site.sampling, site.area)
    if not listed:
        batches = ((found, found.chance < weight(found.lon, found.lat)) for found in _candidates(site))
        return _first(batches, site)
    cells = _listed(site)
    weights = weight(*_centres(cells))
    scores = -np.log(_chances(cells, site.request.seed)) / np.where(weights > 0, weights, np.nan)
    best = [cells[i] for i in np.argsort(scores, kind="stable") if weights[i] > 0]
    return _enough(best, site)


def _first(batches: Iterable[tuple[Candidates, NDArray[np.bool_]]], site: _Site) -> list[Cell]:
    found: dict[str, Cell] = {}
    for candidates, kept in batches:
        found |= {cell.cell_id: cell for cell in candidates.cells(kept) if cell.cell_id not in found}
        if len(found) >= site.sampling.count:
            break
    return _enough([*found.values()], site)


def _stratified(site: _Site, *, listed: bool) -> list[Cell]:
    """Cells of each class up to its share."""
    classify = classes_of(site.sampling, site.area)
    if listed:
        cells = _listed(site)
        order = np.argsort(_chances(cells, site.request.seed), kind="stable")
        ranked = [cells[i] for i in order]
        strata: Iterable[tuple[list[Cell], NDArray[np.int64]]] = [(ranked, classify(*_centres(ranked)))]
    else:
        strata = ((found.cells(), classify(found.lon, found.lat)) for found in _candidates(site))
    return _filled(strata, site)


def _filled(strata: Iterable[tuple[list[Cell], NDArray[np.int64]]], site: _Site) -> list[Cell]:
    wanted: dict[int, int] = {}
    found: dict[int, dict[str, Cell]] = {}
    for cells, classes in strata:
        if not wanted:
            shares = dict.fromkeys(sorted(set(classes.tolist()) - {_NO_CLASS}), 1.0)
            wanted = quotas(site.sampling.count, {int(k): v for k, v in site.sampling.shares.items()} or shares)
        for cell, name in zip(cells, classes.tolist(), strict=True):
            group = found.setdefault(name, {})
            if len(group) < wanted.get(name, 0):
                group[cell.cell_id] = cell
        if wanted and all(len(found.get(name, ())) == count for name, count in wanted.items()):
            return [cell for name in wanted for cell in found.get(name, {}).values()]
    lacking = ", ".join(
        f"class {name}: {len(found.get(name, ()))} of {count}"
        for name, count in wanted.items()
        if len(found.get(name, ())) < count
    )
    raise UsageError(
        f"--sample {site.sampling.count}: too few cells of some classes ({lacking or 'no pixel has a class'}). "
        "Ask for fewer, or give the share of each class with --shares 1=0.5,2=0.5."
    )


def _by_block(site: _Site, *, listed: bool) -> list[Cell]:
    """Whole blocks one after the other, so that chips share what is read; of the last one as many as are wanted."""
    groups = _listed_blocks(site) if listed else _drawn_blocks(site)
    found: list[Cell] = []
    for group in groups:
        found += group
        if len(found) >= site.sampling.count:
            break
    return _enough(found, site)


def _listed_blocks(site: _Site) -> list[list[Cell]]:
    cells, groups = _listed(site), dict[Block, list[Cell]]()
    for epsg, rows in by_zone(cells).items():
        x, y = np.array([cells[i].center_m for i in rows]).T
        for i, block in zip(rows, blocks_at(np.full(len(rows), epsg), x, y, site.request.block_px), strict=True):
            groups.setdefault(block, []).append(cells[i])
    return [groups[block] for block in sorted(groups, key=lambda block: _chance(str(tuple(block)), site.request.seed))]


def _drawn_blocks(site: _Site) -> Iterator[list[Cell]]:
    seen, (chip_px, block_px) = set[Block](), (site.request.chip_px, site.request.block_px)
    parts = shapely.get_parts(site.area)
    random = _random(site.request.seed)
    for _ in range(MOST_BATCHES):
        lon, lat, _ = scattered(parts, random.random((BATCH, 4)), reach_m=block_px * PIXEL_M)
        for block in blocks_at(*in_zones(lon, lat), block_px):
            if block not in seen:
                seen.add(block)
                yield cells_of(block, site.area, chip_px, block_px)


def _candidates(site: _Site) -> Iterator[Candidates]:
    """Cells whose centre lies in the area, batch by batch, each as often as positions fall on it."""
    request, parts, random = site.request, shapely.get_parts(site.area), _random(site.request.seed)
    points = points_of(site.sampling)
    shapely.prepare(parts)
    for _ in range(MOST_BATCHES):
        drawn = random.random((BATCH, 4))
        if points is None:
            lon, lat, holder = scattered(parts, drawn, reach_m=2 * request.chip_px * PIXEL_M)
        else:
            lon, lat = spread(points, drawn, spread_m=site.sampling.spread_m)
            holder = np.full(BATCH, site.area)
        yield snapped(lon, lat, holder, chance=drawn[:, 3], sizes_px=(request.chip_px, request.block_px))


def _listed(site: _Site) -> list[Cell]:
    chip_px, block_px = site.request.chip_px, site.request.block_px
    return block_cells(site.area, chip_px, block_px) if block_px else lattice_cells(site.area, chip_px)


def _centres(cells: Sequence[Cell]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    lon, lat = np.array([cell.center_lonlat for cell in cells]).reshape(-1, 2).T
    return lon, lat


def _enough(cells: list[Cell], site: _Site) -> list[Cell]:
    wanted = site.sampling.count
    if len(cells) < wanted:
        raise UsageError(
            f"--sample {wanted}: only {len(cells)} cells of {site.request.chip_px} pixels were found for --sampler "
            f"{site.sampling.sampler}. Ask for fewer, or give a larger area."
        )
    return cells[:wanted]


def _chances(cells: Sequence[Cell], seed: int) -> NDArray[np.float64]:
    return np.array([_chance(cell.cell_id, seed) for cell in cells])


def _chance(name: str, seed: int) -> float:
    """A number between 0 and 1 that belongs to a name."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) + 0.5) / 2**64


def _random(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(str(seed).encode()).digest())))
