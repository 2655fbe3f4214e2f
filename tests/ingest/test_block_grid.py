"""Cells that keep to blocks: counted against a tile's real block grid, and against cells thrown at random."""

from collections import Counter

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from ingest.areas import mgrs
from ingest.areas.block_grid import block_cells, blocks_at, cells_of, check_block, starts_px
from ingest.areas.grid import Cell, footprints, lattice_cells
from pipeline.errors import UsageError

pytestmark = pytest.mark.ingest

TILES = ["33TWL", "35MNM"]
"""One north and one south of the equator."""

SIDE_BY_SIDE = {512: {96: 5, 120: 4, 250: 2, 256: 1, 264: 1}, 1024: {96: 10, 120: 8, 250: 4, 256: 3, 264: 3}}
"""Chips along one side of a block. Without the step of 60 m one more of 256 px would fit, and none of the others."""


def _middle(name: str, half_m: int = 20_000) -> shapely.Polygon:
    """Degrees. A square in the middle of a tile's own ground."""
    tile = mgrs.tile(name)
    x, y = tile.left_m + 50_000, tile.top_m - 50_000
    back = Transformer.from_crs(tile.epsg, 4326, always_xy=True)
    ring = shapely.segmentize(shapely.box(x - half_m, y - half_m, x + half_m, y + half_m), 1000)
    return shapely.transform(ring, lambda xy: np.column_stack(back.transform(xy[:, 0], xy[:, 1])))


def _touched(cell: Cell, tile: mgrs.Tile, block_px: int) -> set[tuple[int, int]]:
    """Blocks of a 10 m band that a cell needs: a plain loop over its pixels' corners."""
    col, row = (cell.left_m - tile.left_m) / 10, (tile.top_m - cell.top_m) / 10
    assert col == int(col)
    assert row == int(row)
    last = cell.size_px - 1
    rows = {int(row) // block_px, int(row + last) // block_px}
    return {(r, c) for r in rows for c in {int(col) // block_px, int(col + last) // block_px}}


@pytest.mark.parametrize("name", TILES)
@pytest.mark.parametrize("block_px", [512, 1024])
@pytest.mark.parametrize("chip_px", [96, 120, 250, 256, 264])
def test_no_cell_straddles_a_block_and_all_bands_agree(name: str, block_px: int, chip_px: int) -> None:
    tile = mgrs.tile(name)
    cells = block_cells(_middle(name), chip_px, block_px)
    counts = Counter(next(iter(_touched(cell, tile, block_px))) for cell in cells)
    for cell in cells:
        assert len(_touched(cell, tile, block_px)) == 1
        assert ((cell.left_m - tile.left_m) % 60, (tile.top_m - cell.top_m) % 60) == (0, 0)
        for gsd in (2, 6):  # blocks of the coarser bands hold whole blocks of 10 m ones
            coarse = {(r // gsd, c // gsd) for r, c in _touched(cell, tile, block_px)}
            assert len(coarse) == 1
    assert max(counts.values()) == SIDE_BY_SIDE[block_px][chip_px] ** 2
    overlap = shapely.STRtree(footprints(cells, inset_m=1)).query(footprints(cells, inset_m=1), predicate="intersects")
    assert overlap.shape[1] == len(cells)  # each only with itself


def test_three_chips_of_264_share_each_side_of_a_block_of_1024() -> None:
    """A ninth of a block a chip in whole blocks, against 1.4 for twenty cells thrown at random into a tile."""
    tile = mgrs.tile("33TWL")
    cells = block_cells(_middle("33TWL", 45_000), 264, 1024)
    by_block = Counter(block for cell in cells for block in _touched(cell, tile, 1024))
    full = [count for count in by_block.values() if count == 9]
    assert len(full) > 40
    assert set(by_block.values()) <= set(range(1, 10))
    random = np.random.default_rng(0)
    lattice = [cell for cell in lattice_cells(_middle("33TWL", 45_000), 264) if cell.epsg == tile.epsg]
    thrown = [len({block for i in random.choice(len(lattice), 20, replace=False)
                   for block in _touched(lattice[i], tile, 1024)}) / 20 for _ in range(50)]  # fmt: skip
    assert 1.1 < np.mean(thrown) < 1.6
    aligned = [block for block, count in by_block.items() if count == 9][:3]
    assert len(aligned) / 27 == pytest.approx(1 / 9)


@given(st.integers(8, 400), st.sampled_from([512, 1024]), st.integers(1, 11_000))
def test_starts_are_a_plain_loop(chip_px: int, block_px: int, end_px: int) -> None:
    want, at = [], 0
    while at + chip_px <= end_px:
        if at // block_px == (at + chip_px - 1) // block_px:
            want.append(at)
            at += -(-chip_px // 6) * 6
        else:
            at += 6
    assert starts_px(chip_px, block_px, end_px).tolist() == want


@pytest.mark.parametrize(
    ("corners", "epsgs"),
    [
        ((14.95, 45.98, 15.1, 46.1), {32633}),  # four tiles meet
        ((11.95, 46.0, 12.05, 46.05), {32632, 32633}),
        ((14.9, -0.06, 15.0, 0.06), {32633, 32733}),
    ],
)
def test_across_tiles_and_zones_cells_are_there_once(corners: tuple[float, ...], epsgs: set[int]) -> None:
    area = shapely.box(*corners)
    cells = block_cells(area, 60, 512)
    assert {cell.epsg for cell in cells} == epsgs
    assert len({cell.cell_id for cell in cells}) == len(cells)
    for epsg in epsgs:
        outlines = footprints([cell for cell in cells if cell.epsg == epsg], inset_m=1)
        assert shapely.STRtree(outlines).query(outlines, predicate="intersects").shape[1] == len(outlines)
    assert all(shapely.contains_xy(area, *cell.center_lonlat) for cell in cells)


def test_blocks_hold_their_cells() -> None:
    for area in (shapely.box(14.95, 45.98, 15.1, 46.1), shapely.box(14.9, -0.06, 15.0, 0.06)):
        cells = block_cells(area, 96, 512)
        epsg = np.array([cell.epsg for cell in cells])
        x, y = (np.array(axis) for axis in zip(*(cell.center_m for cell in cells), strict=True))
        found: dict[str, Cell] = {}
        for block in set(blocks_at(epsg, x, y, 512)):
            for cell in cells_of(block, area, 96, 512):
                assert cell.cell_id not in found
                found[cell.cell_id] = cell
        assert [found[cell_id] for cell_id in sorted(found)] == cells


@pytest.mark.parametrize(("chip_px", "block_px", "match"), [(600, 512, "--chip-px 600"), (120, 256, "--block-px 256")])
def test_sizes_that_do_not_go_together(chip_px: int, block_px: int, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        check_block(chip_px, block_px)
