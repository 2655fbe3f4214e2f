"""Chips by stackstac: a stack of each chip, or one lazy stack of which 32 chips are computed at once."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import dask
import numpy as np
import stackstac
from job import IN_FLIGHT, Job, serve, threaded
from numpy.typing import NDArray
from rasterio.enums import Resampling


def read(job: Job) -> Iterator[tuple[int, NDArray[Any]]]:
    """As the way says."""
    warnings.simplefilter("ignore")
    resampling = Resampling.bilinear if job.is_warped else Resampling.nearest
    how = {"assets": job.bands, "epsg": job.chips[0][0], "resolution": 10, "dtype": "uint16", "rescale": False}
    how |= {"fill_value": np.uint16(0), "xy_coords": False, "resampling": resampling, "snap_bounds": False}
    if job.way == "chips":
        dask.config.set(scheduler="synchronous")
        return threaded(lambda chip: stackstac.stack(job.items, bounds=job.bounds(chip), **how).values, len(job.chips))
    return computed(stackstac.stack(job.items, bounds=job.extent(), chunksize=1024, **how), job)


def computed(cube: Any, job: Job) -> Iterator[tuple[int, NDArray[Any]]]:
    """32 chips at once."""
    for first in range(0, len(job.chips), 32):
        part = range(first, min(len(job.chips), first + 32))
        windows = [job.window(chip) for chip in part]
        lazy = [cube[:, :, rows, cols] for rows, cols in windows]
        done = dask.compute(*lazy, scheduler="threads", num_workers=IN_FLIGHT)
        yield from ((chip, one.values) for chip, one in zip(part, done, strict=True))


if __name__ == "__main__":
    serve(read)
