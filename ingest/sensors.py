"""One sensor's bands on the cells of a unit, in stored units. Each band of a scene is read once for all cells."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ingest.areas.grid import Cell
from ingest.pixels.cloud import cloudy
from ingest.pixels.faults import classify
from ingest.pixels.mosaic import Block, Image, Refused
from ingest.pixels.quality import UNREADABLE, cloud_share, make_mask
from ingest.pixels.raster import Coordinates, read_band, read_bands, read_small
from ingest.plan import Task
from ingest.request import Request
from ingest.scenes.header import SceneRefused
from ingest.scenes.offset import Testimony, testify_cirrus, testify_coastal
from ingest.scenes.scene import Scene
from pipeline.bands import L1C_NAMES, S1_NAMES
from pipeline.errors import ReadError, UsageError

T = TypeVar("T")
FLOOR_POWER = 1e-5
"""Linear power. Darker pixels are stored as -50 dB: below the noise of any product."""


def attempt(read: Callable[[], T]) -> T | Refused:
    """What `read` gives, or why the scene cannot be used: its file is gone, damaged, or not what its item says.

    Raises:
        ReadError: the read failed in a way that may pass.
    """
    try:
        return read()
    except SceneRefused as error:
        return error.reason
    except ReadError as error:
        if not error.permanent:
            raise
        what = "is not there" if classify(error.why) == "gone" else "cannot be decoded"
        return f"{UNREADABLE}{error.band} of {error.scene_id} {what}"


def to_db(power: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Linear power as dB, floored; NaN where not valid."""
    floored = np.maximum(power.astype(np.float64), FLOOR_POWER)
    return np.where(valid, 10 * np.log10(floored), np.nan).astype(np.float32)


def harmonise(dn: NDArray[np.generic], valid: NDArray[np.bool_], dn_offset: int) -> NDArray[np.uint16]:
    """Digital numbers on the scale without offset: 0 stays nodata, a valid pixel never becomes it."""
    if dn.dtype == np.uint16 and -np.iinfo(np.uint16).max < dn_offset <= 0:
        step = np.uint16(-dn_offset)  # the way below takes ten times as long
        lowered: NDArray[np.uint16] = np.maximum(dn, step + np.uint16(1))
        lowered -= step
        lowered *= valid
        return lowered
    shifted = np.clip(dn.astype(np.int32) + dn_offset, 1, np.iinfo(np.uint16).max)
    return np.where(valid, shifted, 0).astype(np.uint16)


def read_s2(scene: Scene, cells: Sequence[Cell], *, request: Request, shared: Coordinates) -> Block | Refused:
    """Optical bands of one scene on `cells`, as digital numbers without offset, and what it says of clouds."""
    return attempt(partial(_read_s2, scene, cells, request=request, shared=shared))


def read_s1(scene: Scene, cells: Sequence[Cell], *, shared: Coordinates) -> Block | Refused:
    """Both polarisations of one scene on `cells`, resampled in linear power and then brought to dB."""
    return attempt(
        lambda: _read(scene, S1_NAMES, cells, shared=shared, stored=lambda _, *band: to_db(*band), dtype=np.float32)
    )


def _read_s2(scene: Scene, cells: Sequence[Cell], *, request: Request, shared: Coordinates) -> Block:

    dn_offset, words = _offset(scene)

    def stored(name: str, dn: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.generic]:
        return harmonise(dn, valid, scene.assets[name].dn_offset if dn_offset is None else dn_offset)

    block = _read(scene, request.s2_bands, cells, shared=shared, stored=stored, dtype=np.uint16)
    wanted = {"SCL", *(["CLD"] if request.cloud_percent is not None else [])} & set(scene.assets)
    extra = {name: read_band(scene, name, cells, shared=shared, classes=True).data for name in sorted(wanted)}
    return replace(block, scl=extra.get("SCL"), cloud_percent=extra.get("CLD"), offset=words)


def _offset(scene: Scene) -> tuple[int | None, str]:
    """What to add to every band, None where each says it itself; and that in words, with the rule.

    Raises:
        SceneRefused: catalogs disagree and the pixels do not tell.
    """
    if scene.offset_rule != "witness":
        first = next((scene.assets[name] for name in L1C_NAMES if name in scene.assets), None)
        return None, f"{first.dn_offset if first else 0} {scene.offset_rule}"
    told = _testimony(scene)
    if told.dn_offset is None:
        why = f"whether the offset is in the pixels cannot be told: {told.evidence}"
        raise SceneRefused(scene.scene_id, "offset", "", why)
    return told.dn_offset, f"{told.dn_offset} witness, {told.evidence}"


def _testimony(scene: Scene) -> Testimony:
    """What the pixels say of the offset: one small read, and one more where the first does not tell."""
    band = "B10" if "B10" in scene.assets else "B01"
    if band not in scene.assets:
        return Testimony(dn_offset=None, evidence="it has neither B01 nor B10")
    dn_offset, dn = scene.assets[band].dn_offset, read_small(scene, band)
    if band == "B10":
        return testify_cirrus(dn, dn_offset)
    told = testify_coastal(dn, None, dn_offset)
    if told.dn_offset is not None or "SCL" not in scene.assets:
        return told
    return testify_coastal(dn, read_small(scene, "SCL", shape_px=dn.shape), dn_offset)


def _read(
    scene: Scene,
    bands: Sequence[str],
    cells: Sequence[Cell],
    *,
    shared: Coordinates,
    stored: Callable[[str, NDArray[np.generic], NDArray[np.bool_]], NDArray[np.generic]],
    dtype: type[np.generic],
) -> Block:
    """Bands of one sensor as they are stored. Chip by chip: what fits the processor's cache costs half."""
    shape = cells[0].size_px, cells[0].size_px
    data, valid = np.empty((len(cells), len(bands), *shape), dtype), np.ones((len(cells), *shape), bool)
    warped = np.empty((len(cells), len(bands)), bool)
    for band, chips in enumerate(read_bands(scene, bands, cells, shared=shared)):
        warped[:, band] = chips.warped
        for i, (pixels, good) in enumerate(zip(chips.data, chips.valid, strict=True)):
            data[i, band] = stored(bands[band], pixels, good)
            valid[i] &= good
    return Block(data=data, valid=valid, warped=warped)


def read_labels(tasks: Sequence[Task], shared: Coordinates) -> list[NDArray[np.uint8] | Refused]:
    """For each task (H, W) classes, 0 where no label raster covers the chip; or why its raster cannot be used."""
    return [attempt(partial(_classes_of, task, shared)) for task in tasks]


def _classes_of(task: Task, shared: Coordinates) -> NDArray[np.uint8]:
    classes = np.zeros((task.cell.size_px, task.cell.size_px), np.uint8)
    for scene in task.labels:
        if "label" in scene.assets:
            classes = _as_classes(read_band(scene, "label", [task.cell], shared=shared, classes=True).data[0], scene)
    return classes


def _as_classes(data: NDArray[Any], scene: Scene) -> NDArray[np.uint8]:
    if data.min() < 0 or data.max() > np.iinfo(np.uint8).max:
        raise UsageError(
            f"label {scene.scene_id} has classes from {data.min()} to {data.max()}; a sample stores 0 to 255. "
            "Renumber them, or leave the collection out of --labels."
        )
    return data.astype(np.uint8)


def mask_of(image: Image, s1_valid: NDArray[np.bool_], request: Request) -> tuple[NDArray[np.uint8], float | None]:
    """(H, W) `MaskBit`s of a chip, and its share of cloud.

    The share is of the chip where anything was seen of clouds, else of the cloudiest whole scene that is known.
    """
    threshold = 50.0 if request.cloud_percent is None else request.cloud_percent
    clouds = cloudy(image, request.s2_bands, model=request.cloud_model, threshold_percent=threshold)
    mask = make_mask(image.valid, s1_valid, image.scl, clouds)
    return mask, _cloud_of(image, mask, seen=image.scl is not None or clouds is not None)


def _cloud_of(image: Image, mask: NDArray[np.uint8], *, seen: bool) -> float | None:
    if seen:
        return cloud_share(mask)
    known = [scene.cloud_percent for scene in image.scenes if scene.cloud_percent is not None]
    return max(known) / 100 if known else None
