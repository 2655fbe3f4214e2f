"""One unit of pairs → its samples and verdicts. Pixels in, pixels out; writes nothing.

Each band of each scene is read once for all chips of the unit. Digital numbers are brought to the scale without offset,
radar to dB after it was resampled in linear power, and every chip is judged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.pixels.coregister import estimate_shift
from ingest.pixels.mosaic import Image, Refused, compose
from ingest.pixels.quality import QualityReport, judge, refused
from ingest.pixels.raster import Coordinates
from ingest.plan import PairTask, Task, Unit
from ingest.request import Request
from ingest.scenes.scene import Scene
from ingest.sensors import mask_of, read_labels, read_s1, read_s2
from pipeline.bands import S1_NAMES
from pipeline.sample import PairSample, Sample, SampleMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What became of one chip."""

    task: Task
    """What was asked for."""
    quality: QualityReport
    """The verdict."""
    sample: Sample | None
    """None where the chip was rejected."""


def assemble(unit: Unit, request: Request, *, with_label: bool) -> Iterator[Made]:
    """The chips of `unit`, in task order.

    Raises:
        ReadError: an asset could not be read this time. What can never be read rejects its chips.
    """
    shared: Coordinates = {}
    tasks = [task for task in unit.tasks if isinstance(task, PairTask)]
    cells = [task.cell for task in tasks]
    s2 = compose(
        [task.s2 for task in tasks],
        lambda scene, at: read_s2(scene, [cells[i] for i in at], request=request, shared=shared),
    )
    s1 = compose([task.s1 for task in tasks], lambda scene, at: read_s1(scene, [cells[i] for i in at], shared=shared))
    labels = read_labels(tasks, shared) if with_label else None
    for i, task in enumerate(tasks):
        yield _made(task, s2[i], s1[i], labels[i] if labels else None, request=request)


def _made(
    task: PairTask,
    s2: Image | Refused,
    s1: Image | Refused,
    label: NDArray[np.uint8] | Refused | None,
    *,
    request: Request,
) -> Made:
    if isinstance(s2, Refused) or isinstance(s1, Refused) or isinstance(label, Refused):
        why = next(one for one in (s2, s1, label) if isinstance(one, Refused))
        return Made(task=task, quality=refused(why), sample=None)
    mask, cloud = mask_of(s2, s1.valid, request)
    limits = {"max_nodata": request.max_nodata_percent / 100, "max_cloud": request.max_cloud_percent / 100}
    quality = judge(mask, cloud, **limits)
    if quality.reason:
        return Made(task=task, quality=quality, sample=None)
    sample = PairSample(
        key=task.key,
        s2=s2.data.astype("<u2", copy=False),
        s1=s1.data.astype("<f4", copy=False),
        mask=mask,
        label=label,
        meta=_meta(task, s2, s1, quality, bands=(*request.s2_bands, *S1_NAMES)),
    )
    return Made(task=task, quality=quality, sample=sample)


def _meta(task: PairTask, s2: Image, s1: Image, quality: QualityReport, *, bands: Sequence[str]) -> SampleMeta:
    return SampleMeta(
        cell_id=task.cell.cell_id,
        epsg=task.cell.epsg,
        transform=task.cell.transform,
        center_lonlat=task.cell.center_lonlat,
        acquired=(task.s2.acquired,),
        s1_acquired=(task.s1.acquired,),
        scene_ids=scene_names("s2", [s2.scenes]) | scene_names("s1", [s1.scenes]),
        offsets=s2.offsets,
        gap_hours=task.gap_hours,
        backscatter=task.s1.backscatter,
        orbit_state=task.s1.orbit_state,
        cloud_fraction=quality.cloud_fraction,
        valid_fraction=quality.valid_fraction,
        shift_px=estimate_shift(s1.data.astype("<f4"), s2.data.astype("<u2")),
        resampled=resampled(bands, np.concatenate([s2.warped, s1.warped])),
        classes=tuple(sorted({name for scene in task.labels for name in scene.classes})),
    )


def scene_names(sensor: str, frames: Sequence[tuple[Scene, ...]]) -> dict[str, tuple[str, ...]]:
    """The main scene of each frame, and where any was filled, those that filled it, with blanks between."""
    mains = tuple(scenes[0].scene_id for scenes in frames)
    fills = tuple(" ".join(scene.scene_id for scene in scenes[1:]) for scenes in frames)
    return {sensor: mains} | ({f"{sensor}_fills": fills} if any(fills) else {})


def resampled(bands: Sequence[str], warped: NDArray[np.bool_]) -> tuple[str, ...]:
    """The names of the bands that were interpolated."""
    return tuple(name for name, moved in zip(bands, warped.tolist(), strict=True) if moved)
