"""One sensor's bands on the cells of a unit, in stored units. Each band of a scene is read once for all cells."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.grid import Cell
from ingest.mosaic import Block, Image
from ingest.plan import Task
from ingest.quality import cloud_share
from ingest.raster import Chips, Coordinates, read_band
from ingest.scene import Scene
from pipeline.bands import S1_NAMES
from pipeline.errors import UsageError

FLOOR_POWER = 1e-5
"""Linear power. Darker pixels are stored as -50 dB: below the noise of any product."""


def to_db(power: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Linear power as dB, floored; NaN where not valid."""
    floored = np.maximum(power.astype(np.float64), FLOOR_POWER)
    return np.where(valid, 10 * np.log10(floored), np.nan).astype(np.float32)


def harmonise(dn: NDArray[np.generic], valid: NDArray[np.bool_], dn_offset: int) -> NDArray[np.uint16]:
    """Digital numbers on the scale without offset: 0 stays nodata, a valid pixel never becomes it."""
    shifted = np.clip(dn.astype(np.int32) + dn_offset, 1, np.iinfo(np.uint16).max)
    return np.where(valid, shifted, 0).astype(np.uint16)


def read_s2(scene: Scene, cells: Sequence[Cell], *, bands: Sequence[str], shared: Coordinates) -> Block:
    """Optical bands of one scene on `cells`, digital numbers on the scale without offset, and its classification."""
    read = []
    for name in bands:
        chips = read_band(scene, name, cells, shared=shared)
        read.append((chips, harmonise(chips.data, chips.valid, scene.assets[name].dn_offset)))
    block = _join([chips for chips, _ in read], [data for _, data in read])
    has_scl = "SCL" in scene.assets
    return replace(block, scl=read_band(scene, "SCL", cells, shared=shared, classes=True).data if has_scl else None)


def read_s1(scene: Scene, cells: Sequence[Cell], *, shared: Coordinates) -> Block:
    """Both polarisations of one scene on `cells`, resampled in linear power and then brought to dB."""
    chips = [read_band(scene, name, cells, shared=shared) for name in S1_NAMES]
    return _join(chips, [to_db(band.data, band.valid) for band in chips])


def _join(bands: Sequence[Chips], data: Sequence[NDArray[np.generic]]) -> Block:
    """Bands of one sensor, with `data` in place of what was read."""
    return Block(
        data=np.stack(data, axis=1),
        valid=np.logical_and.reduce([band.valid for band in bands]),
        warped=np.stack([band.warped for band in bands], axis=1),
    )


def read_labels(tasks: Sequence[Task], shared: Coordinates) -> NDArray[np.uint8]:
    """(n, H, W) classes; 0 where no label raster covers a chip."""
    size = tasks[0].cell.size_px
    labels = np.zeros((len(tasks), size, size), np.uint8)
    for i, task in enumerate(tasks):
        for scene in task.labels:
            if "label" in scene.assets:
                labels[i] = _as_classes(
                    read_band(scene, "label", [task.cell], shared=shared, classes=True).data[0], scene
                )
    return labels


def _as_classes(data: NDArray[Any], scene: Scene) -> NDArray[np.uint8]:
    if data.min() < 0 or data.max() > np.iinfo(np.uint8).max:
        raise UsageError(
            f"label {scene.scene_id} has classes from {data.min()} to {data.max()}; a sample stores 0 to 255. "
            "Renumber them, or leave the collection out of --labels."
        )
    return data.astype(np.uint8)


def cloud_of(image: Image, mask: NDArray[np.uint8]) -> float | None:
    """Share of cloud: of the chip where there is a classification, else of the cloudiest whole scene that is known."""
    if image.scl is not None:
        return cloud_share(mask)
    known = [scene.cloud_percent for scene in image.scenes if scene.cloud_percent is not None]
    return max(known) / 100 if known else None
