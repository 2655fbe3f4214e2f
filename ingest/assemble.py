"""One unit of the plan → its samples and verdicts. Pixels in, pixels out; writes nothing.

Each band of each scene is read once for all chips of the unit. Digital numbers are brought to the scale without offset,
radar to dB after it was resampled in linear power, and every chip is judged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.coregister import estimate_shift
from ingest.grid import Cell
from ingest.plan import PairTask, Unit
from ingest.quality import QualityReport, cloud_share, judge, make_mask
from ingest.raster import Chips, Coordinates, read_band
from ingest.request import Request
from ingest.scene import Scene
from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.errors import UsageError
from pipeline.sample import PairSample, SampleMeta

FLOOR_POWER = 1e-5
"""Linear power. Darker pixels are stored as -50 dB: below the noise of any product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What became of one chip."""

    task: PairTask
    """What was asked for."""
    quality: QualityReport
    """The verdict."""
    sample: PairSample | None
    """None where the chip was rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stack:
    """Bands of one sensor on the cells of a unit."""

    data: NDArray[np.generic]
    """(n, C, H, W)."""
    valid: NDArray[np.bool_]
    """(n, H, W) all bands have data."""
    warped: NDArray[np.bool_]
    """(n, C)."""


def assemble(unit: Unit, request: Request, *, with_label: bool) -> Iterator[Made]:
    """The chips of `unit`, in task order.

    Raises:
        ReadError: an asset could not be read.
    """
    shared: Coordinates = {}
    cells = [task.cell for task in unit.tasks]
    s2_scene = unit.tasks[0].s2
    s2 = _read_s2(s2_scene, cells, shared)
    scl = read_band(s2_scene, "SCL", cells, shared=shared, classes=True).data if "SCL" in s2_scene.assets else None
    s1 = _read_s1(unit.tasks, shared)
    labels = _read_labels(unit.tasks, shared) if with_label else None
    for i, task in enumerate(unit.tasks):
        mask = make_mask(s2.valid[i], s1.valid[i], None if scl is None else scl[i])
        cloud = _scene_cloud(s2_scene) if scl is None else cloud_share(mask)
        quality = judge(
            mask, cloud, max_nodata=request.max_nodata_percent / 100, max_cloud=request.max_cloud_percent / 100
        )
        sample = None
        if not quality.reason:
            bands = tuple(np.array(S2_NAMES + S1_NAMES)[np.concatenate([s2.warped[i], s1.warped[i]])].tolist())
            pixels = (s2.data[i].astype("<u2"), s1.data[i].astype("<f4"))
            sample = PairSample(
                key=task.key,
                s2=pixels[0],
                s1=pixels[1],
                mask=mask,
                label=None if labels is None else labels[i],
                meta=_meta(task, quality, shift=estimate_shift(pixels[1], pixels[0]), resampled=bands),
            )
        yield Made(task=task, quality=quality, sample=sample)


def to_db(power: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Linear power as dB, floored; NaN where not valid."""
    floored = np.maximum(power.astype(np.float64), FLOOR_POWER)
    return np.where(valid, 10 * np.log10(floored), np.nan).astype(np.float32)


def harmonise(dn: NDArray[np.generic], valid: NDArray[np.bool_], dn_offset: int) -> NDArray[np.uint16]:
    """Digital numbers on the scale without offset: 0 stays nodata, a valid pixel never becomes it."""
    shifted = np.clip(dn.astype(np.int32) + dn_offset, 1, np.iinfo(np.uint16).max)
    return np.where(valid, shifted, 0).astype(np.uint16)


def _read_s2(scene: Scene, cells: Sequence[Cell], shared: Coordinates) -> _Stack:
    bands = []
    for name in S2_NAMES:
        chips = read_band(scene, name, cells, shared=shared)
        bands.append((chips, harmonise(chips.data, chips.valid, scene.assets[name].dn_offset)))
    return _stack([chips for chips, _ in bands], [data for _, data in bands])


def _read_s1(tasks: Sequence[PairTask], shared: Coordinates) -> _Stack:
    """Radar of every task; tasks of one S1 scene share its reads."""
    order = sorted(range(len(tasks)), key=lambda i: tasks[i].s1.scene_id)
    parts: list[_Stack] = []
    for _, members in groupby(order, key=lambda i: tasks[i].s1.scene_id):
        positions = list(members)
        cells, scene = [tasks[i].cell for i in positions], tasks[positions[0]].s1
        chips = [read_band(scene, name, cells, shared=shared) for name in S1_NAMES]
        parts.append(_stack(chips, [to_db(band.data, band.valid) for band in chips]))
    back = np.argsort(order)
    return _Stack(
        data=np.concatenate([part.data for part in parts])[back],
        valid=np.concatenate([part.valid for part in parts])[back],
        warped=np.concatenate([part.warped for part in parts])[back],
    )


def _stack(bands: Sequence[Chips], data: Sequence[NDArray[np.generic]]) -> _Stack:
    return _Stack(
        data=np.stack(data, axis=1),
        valid=np.logical_and.reduce([band.valid for band in bands]),
        warped=np.stack([band.warped for band in bands], axis=1),
    )


def _read_labels(tasks: Sequence[PairTask], shared: Coordinates) -> NDArray[np.uint8]:
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


def _scene_cloud(scene: Scene) -> float | None:
    return None if scene.cloud_percent is None else scene.cloud_percent / 100


def _meta(
    task: PairTask, quality: QualityReport, *, shift: tuple[float, float, float] | None, resampled: tuple[str, ...]
) -> SampleMeta:
    return SampleMeta(
        cell_id=task.cell.cell_id,
        epsg=task.cell.epsg,
        transform=task.cell.transform,
        center_lonlat=task.cell.center_lonlat,
        acquired=(task.s2.acquired,),
        s1_acquired=(task.s1.acquired,),
        scene_ids={"s2": (task.s2.scene_id,), "s1": (task.s1.scene_id,)},
        gap_hours=task.gap_hours,
        backscatter=task.s1.backscatter,
        orbit_state=task.s1.orbit_state,
        cloud_fraction=quality.cloud_fraction,
        valid_fraction=quality.valid_fraction,
        shift_px=shift,
        resampled=resampled,
        classes=tuple(sorted({name for scene in task.labels for name in scene.classes})),
    )
