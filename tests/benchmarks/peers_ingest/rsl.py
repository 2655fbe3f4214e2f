"""Chips by rslearn's own read function of remote images: a file is opened and warped for every chip, date and band."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from job import Job, serve, threaded
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rslearn.data_sources.direct_materialize_data_source import DirectMaterializeDataSource
from rslearn.utils.geometry import Projection


def read(job: Job) -> Iterator[tuple[int, NDArray[Any]]]:
    """Chips in threads."""
    projection = Projection(CRS.from_epsg(job.chips[0][0]), 10, -10)

    def one(chip: int, href: str) -> NDArray[Any]:
        left, bottom, right, top = job.bounds(chip)
        bounds = round(left / 10), round(-top / 10), round(right / 10), round(-bottom / 10)
        given = (href, projection, bounds, Resampling.bilinear)
        return DirectMaterializeDataSource._read_raster_from_url(None, *given)[0][0]  # type: ignore[arg-type]

    def chip_of(chip: int) -> NDArray[Any]:
        return np.array([[one(chip, item["assets"][name]["href"]) for name in job.bands] for item in job.items])

    return threaded(chip_of, len(job.chips))


if __name__ == "__main__":
    serve(read)
