"""One unit of pairs → its samples and verdicts. Pixels in, pixels out; writes nothing.

Each band of each scene is read once for all chips of the unit. Digital numbers are brought to the scale without offset,
radar to dB after it was resampled in linear power, and every chip is judged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ingest.coregister import estimate_shift
from ingest.plan import PairTask, Task, Unit
from ingest.quality import QualityReport, judge, make_mask
from ingest.raster import Coordinates, read_band
from ingest.request import Request
from ingest.sensors import Block, cloud_of, join, read_labels, read_s2, read_scl, to_db
from pipeline.bands import S1_NAMES, S2_NAMES
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
        ReadError: an asset could not be read.
    """
    shared: Coordinates = {}
    tasks = [task for task in unit.tasks if isinstance(task, PairTask)]
    cells, s2_scene = [task.cell for task in tasks], tasks[0].s2
    s2 = read_s2(s2_scene, cells, bands=S2_NAMES, shared=shared)
    scl = read_scl(s2_scene, cells, shared)
    s1 = _read_s1(tasks, shared)
    labels = read_labels(tasks, shared) if with_label else None
    for i, task in enumerate(tasks):
        mask = make_mask(s2.valid[i], s1.valid[i], None if scl is None else scl[i])
        cloud = cloud_of(s2_scene, mask, seen=scl is not None)
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


def _read_s1(tasks: Sequence[PairTask], shared: Coordinates) -> Block:
    """Radar of every task; tasks of one S1 scene share its reads."""
    order = sorted(range(len(tasks)), key=lambda i: tasks[i].s1.scene_id)
    parts: list[Block] = []
    for _, members in groupby(order, key=lambda i: tasks[i].s1.scene_id):
        positions = list(members)
        cells, scene = [tasks[i].cell for i in positions], tasks[positions[0]].s1
        chips = [read_band(scene, name, cells, shared=shared) for name in S1_NAMES]
        parts.append(join(chips, [to_db(band.data, band.valid) for band in chips]))
    back = np.argsort(order)
    return Block(
        data=np.concatenate([part.data for part in parts])[back],
        valid=np.concatenate([part.valid for part in parts])[back],
        warped=np.concatenate([part.warped for part in parts])[back],
    )


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
