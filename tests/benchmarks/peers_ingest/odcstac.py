"""Chips by odc-stac: a load of each chip, or one lazy cube of which 32 chips are computed at once."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import dask
import numpy as np
import odc.stac
import pystac
from affine import Affine
from job import IN_FLIGHT, Job, serve, threaded
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox


def read(job: Job) -> Iterator[tuple[int, NDArray[Any]]]:
    """As the way says."""
    items = [pystac.Item.from_dict(one) for one in job.items]
    how = {"bands": job.bands, "dtype": "uint16", "nodata": 0, "resampling": "bilinear" if job.is_warped else "nearest"}

    def load(box: tuple[float, float, float, float], **more: Any) -> Any:
        left, bottom, right, top = box
        shape = round((top - bottom) / 10), round((right - left) / 10)
        grid = GeoBox(shape, Affine(10, 0, left, 0, -10, top), f"EPSG:{job.chips[0][0]}")
        return odc.stac.load(items, geobox=grid, **how, **more)

    if job.way == "chips":
        return threaded(lambda chip: as_array(load(job.bounds(chip)), job), len(job.chips))
    return computed(load(job.extent(), chunks={"x": 1024, "y": 1024}), job)


def as_array(cube: Any, job: Job) -> NDArray[Any]:
    """(T, C, H, W)."""
    return np.stack([cube[name].values for name in job.bands], axis=1)


def computed(cube: Any, job: Job) -> Iterator[tuple[int, NDArray[Any]]]:
    """32 chips at once."""
    for first in range(0, len(job.chips), 32):
        part = range(first, min(len(job.chips), first + 32))
        windows = [job.window(chip) for chip in part]
        lazy = [cube.isel(y=rows, x=cols) for rows, cols in windows]
        done = dask.compute(*lazy, scheduler="threads", num_workers=IN_FLIGHT)
        yield from ((chip, as_array(one, job)) for chip, one in zip(part, done, strict=True))


if __name__ == "__main__":
    serve(read)
