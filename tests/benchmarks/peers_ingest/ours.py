"""Chips by our own reader, in units as the plan cuts them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from asking import plain_request
from job import Job, serve
from numpy.typing import NDArray

from ingest.areas.grid import corner_cell
from ingest.pixels.heap import keep_freed_memory
from ingest.pixels.raster import read_bands
from ingest.plan import StackTask, make_task, make_units
from ingest.scenes.scene import Scene, parse_scene
from ingest.scenes.stacking import Stack


def read(job: Job) -> Iterator[tuple[int, NDArray[Any]]]:
    """Unit by unit."""
    keep_freed_memory()
    scenes = tuple(parse_scene(one, s2_bands=job.bands) for one in job.items)
    assert all(isinstance(scene, Scene) for scene in scenes)
    cells = [corner_cell(epsg, left, top, job.size) for epsg, left, top in job.chips]
    stack = Stack(cell=0, candidates=scenes)
    tasks = [make_task(stack, cell, labels={}, side=("b", "train")) for cell in cells]
    places: dict[str, list[int]] = {}
    for i, cell in enumerate(cells):
        places.setdefault(cell.cell_id, []).append(i)
    request = plain_request(kind="stack", frames=len(scenes), s2_bands=tuple(job.bands), chip_px=job.size)
    for unit in make_units(tasks, request):
        shared: dict[Any, Any] = {}
        here = [task.cell for task in unit.tasks if isinstance(task, StackTask)]
        dates = [[chips.data for chips in read_bands(scene, job.bands, here, shared=shared)] for scene in scenes]
        for i, cell in enumerate(here):
            yield places[cell.cell_id].pop(), np.stack([[band[i] for band in date] for date in dates])


if __name__ == "__main__":
    serve(read)
