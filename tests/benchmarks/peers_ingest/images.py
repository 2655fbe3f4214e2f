"""Two dates of three bands whose every pixel is known, as COGs with STAC items; and the chips that all peers read."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from shapely.geometry import box, mapping

EPSG, OTHER, LEFT, TOP, SIDE, CHIP = 32633, 32634, 499980, 5300040, 5490, 264
"""CRS, the next zone's, upper left corner (m), pixels a side of an image and of a chip."""
BANDS, DATES = ("B02", "B03", "B04"), 2
Chip = tuple[int, float, float]
"""EPSG, left, top."""


def pixels(date: int, band: int) -> NDArray[np.uint16]:
    """(5490, 5490): slopes and noise, which deflate to about three quarters."""
    random = np.random.default_rng((date, band))
    y, x = np.ogrid[:SIDE, :SIDE]
    slopes = 1500 + 600 * np.sin(x / (37 + band)) * np.cos(y / (53 + date))
    return (slopes + random.integers(0, 256, (SIDE, SIDE))).astype(np.uint16)


def write(folder: Path, block: int, url: str) -> list[dict[str, Any]]:
    """COGs without overviews in `folder`, and the items that point at `url`."""
    items = []
    for date in range(DATES):
        assets = {}
        for number, band in enumerate(BANDS):
            name = f"{block}-{date}-{band}.tif"
            if not (folder / name).exists():
                write_cog(folder / name, pixels(date, number), block)
            assets[band] = asset(f"{url}/{name}")
        items.append(item(f"S2-{date}", datetime(2023, 6, 1 + 5 * date, 10, tzinfo=UTC), assets))
    return items


def write_cog(path: Path, image: NDArray[np.uint16], block: int) -> None:
    """One image as GDAL's own COG driver lays it out."""
    profile = {"driver": "GTiff", "count": 1, "height": image.shape[0], "width": image.shape[1], "dtype": image.dtype}
    profile |= {"crs": EPSG, "transform": Affine(10, 0, LEFT, 0, -10, TOP), "nodata": 0}
    cog = {"driver": "COG", "blocksize": block, "compress": "deflate", "predictor": "yes", "overviews": "none"}
    with MemoryFile() as memory:
        with memory.open(**profile) as file:
            file.write(image, 1)
        with memory.open() as file:
            rasterio.shutil.copy(file, path, **cog)


def asset(href: str) -> dict[str, Any]:
    """With all that a reader can want to know beforehand."""
    return {
        "href": href,
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "proj:shape": [SIDE, SIDE],
        "proj:transform": [10, 0, LEFT, 0, -10, TOP, 0, 0, 1],
        "raster:bands": [{"data_type": "uint16", "nodata": 0, "spatial_resolution": 10}],
    }


def item(name: str, when: datetime, assets: dict[str, Any]) -> dict[str, Any]:
    """One STAC item of version 1.0."""
    ground = box(LEFT, TOP - 10 * SIDE, LEFT + 10 * SIDE, TOP)
    to = Transformer.from_crs(EPSG, 4326, always_xy=True).transform
    outline = shapely.transform(ground.segmentize(5000), to, interleaved=False)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": mapping(outline),
        "bbox": list(outline.bounds),
        "properties": {"datetime": when.isoformat().replace("+00:00", "Z"), "proj:epsg": EPSG},
        "links": [],
        "assets": assets,
    }


def chips(scenario: str) -> list[Chip]:
    """Where chips lie: `random` (200), `sparse` (8), `clustered` (60 in three places), `grid` (400), `edge` (24)."""
    random, most = np.random.default_rng(5), SIDE - CHIP
    if scenario == "grid":
        places = [(CHIP * col, CHIP * row) for row in range(SIDE // CHIP) for col in range(SIDE // CHIP)]
    elif scenario == "clustered":
        centers = random.integers(600, most - 600, (3, 2))
        places = [
            tuple(np.clip(center + random.integers(-500, 500, 2), 0, most)) for center in centers for _ in range(20)
        ]
    else:
        count = {"random": 200, "sparse": 8, "edge": 24}[scenario]
        places = [tuple(place) for place in random.integers(300, most - 300, (count, 2))]
    found = [(EPSG, LEFT + 10.0 * int(col), TOP - 10.0 * int(row)) for col, row in places]
    if scenario != "edge":
        return found
    to = Transformer.from_crs(EPSG, OTHER, always_xy=True)
    return [(OTHER, *(round(value / 60) * 60.0 for value in to.transform(left, top))) for _, left, top in found]


def truth(where: list[Chip], folder: Path, block: int) -> Iterator[NDArray[np.uint16]]:
    """(T, C, H, W) of each chip: the generator's own pixels; in the next zone GDAL's at its most exact."""
    if where[0][0] == EPSG:
        images = [[pixels(date, band) for band in range(len(BANDS))] for date in range(DATES)]
        for _, left, top in where:
            row, col = int((TOP - top) / 10), int((left - LEFT) / 10)
            yield np.array([[image[row : row + CHIP, col : col + CHIP] for image in date] for date in images])
        return
    for epsg, left, top in where:
        grid = {"crs": epsg, "transform": Affine(10, 0, left, 0, -10, top), "width": CHIP, "height": CHIP}
        found = np.empty((DATES, len(BANDS), CHIP, CHIP), np.uint16)
        for date, band in np.ndindex(DATES, len(BANDS)):
            exact = {"resampling": Resampling.bilinear, "tolerance": 1e-6, "XSCALE": 1, "YSCALE": 1}
            with (
                rasterio.open(folder / f"{block}-{date}-{BANDS[band]}.tif") as file,
                WarpedVRT(file, **grid, **exact) as vrt,
            ):
                found[date, band] = vrt.read(1)
        yield found


def job(scenario: str, block: int, folder: Path, items: list[dict[str, Any]]) -> Path:
    """A file that tells a peer what to read and what comes out."""
    where = chips(scenario)
    path, pixels_path = folder / f"{scenario}-{block}.json", folder / f"{scenario}-{block}.u2"
    with pixels_path.open("wb") as file:
        for found in truth(where, folder, block):
            file.write(found.tobytes())
    told = {"items": items, "bands": BANDS, "chips": where, "size": CHIP, "truth": str(pixels_path)}
    path.write_text(json.dumps({**told, "tolerance": int(scenario == "edge"), "folder": str(folder), "block": block}))
    return path
