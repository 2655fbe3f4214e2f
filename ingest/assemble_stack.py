"""One unit of stacks → its samples and verdicts. Pixels in, pixels out; writes nothing.

Scenes are read in order of time, each for the cells that it can still help then: a stack takes the first good dates
that may follow each other, and what comes after its last frame is never read.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from ingest.assemble import Made, resampled, scene_names
from ingest.mosaic import Image, Refused, compose
from ingest.plan import StackTask, Unit
from ingest.quality import QualityReport, judge, make_mask
from ingest.raster import Coordinates
from ingest.request import Request, spacing
from ingest.scene import Scene
from ingest.sensors import cloud_of, read_labels, read_s2
from ingest.spacing import Spacing, chain, lengths
from pipeline.sample import SampleMeta, StackSample


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """One date of one cell."""

    scenes: tuple[Scene, ...]
    """Those that gave a pixel, the main one first."""
    s2: NDArray[np.uint16]
    """(C, H, W)."""
    mask: NDArray[np.uint8]
    """(H, W)."""
    warped: NDArray[np.bool_]
    """(C,)."""
    quality: QualityReport
    """The verdict."""


@dataclass(slots=True, kw_only=True)
class _Series:
    """A stack that is being filled."""

    task: StackTask
    """What was asked for."""
    spacing: Spacing
    """What its frames must keep to."""
    good: list[_Frame] = field(default_factory=list)
    """Good dates so far, by time; some of them become the frames."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Reasons of the others."""

    def wants(self, scene: Scene, request: Request) -> bool:
        """Whether to look at a scene's pixels."""
        if self.candidate(scene) is None or self.frames(request.frames):
            return False
        times = self._times()
        known = list(zip(times, lengths(times, self.spacing), strict=True))
        return self.spacing.helps(scene.acquired, known)

    def frames(self, wanted: int) -> list[_Frame]:
        """The frames; empty as long as too few good dates may follow each other."""
        return [self.good[i] for i in chain(self._times(), self.spacing, wanted) or ()]

    def _times(self) -> list[datetime]:
        return [frame.scenes[0].acquired for frame in self.good]

    def candidate(self, scene: Scene) -> Scene | None:
        """The task's candidate of that name, with what fills it on this cell; None where it has none."""
        return next((one for one in self.task.candidates if one.scene_id == scene.scene_id), None)

    def offer(self, frame: _Frame | Refused) -> None:
        """Take a frame, or count why not."""
        reason = frame if isinstance(frame, Refused) else frame.quality.reason
        if isinstance(frame, Refused) or reason:
            self.rejected[reason] += 1
        else:
            self.good.append(frame)


def assemble_stacks(unit: Unit, request: Request, *, with_label: bool) -> Iterator[Made]:
    """The stacks of `unit`, in task order.

    Raises:
        ReadError: an asset could not be read.
    """
    shared: Coordinates = {}
    tasks = [task for task in unit.tasks if isinstance(task, StackTask)]
    series = [_Series(task=task, spacing=spacing(request)) for task in tasks]
    scenes = {scene.scene_id: scene for task in tasks for scene in task.candidates}
    for scene in sorted(scenes.values(), key=lambda scene: (scene.acquired, scene.scene_id)):
        wanting = [one for one in series if one.wants(scene, request)]
        if wanting:
            _read(scene, wanting, request, shared)
    labels = read_labels(tasks, shared) if with_label else None
    for i, one in enumerate(series):
        yield _made(one, request, None if labels is None else labels[i])


def _read(scene: Scene, wanting: Sequence[_Series], request: Request, shared: Coordinates) -> None:
    cells = [one.task.cell for one in wanting]
    images = compose(
        [one.candidate(scene) or scene for one in wanting],
        lambda part, at: read_s2(part, [cells[i] for i in at], bands=request.s2_bands, shared=shared),
    )
    for one, image in zip(wanting, images, strict=True):
        one.offer(image if isinstance(image, Refused) else _frame(image, request))


def _frame(image: Image, request: Request) -> _Frame:
    mask = make_mask(image.valid, np.ones_like(image.valid), image.scl)
    limits = {"max_nodata": request.max_nodata_percent / 100, "max_cloud": request.max_cloud_percent / 100}
    pixels, quality = image.data.astype("<u2"), judge(mask, cloud_of(image, mask), **limits)
    return _Frame(scenes=image.scenes, s2=pixels, mask=mask, warped=image.warped, quality=quality)


def _made(series: _Series, request: Request, label: NDArray[np.uint8] | None) -> Made:
    frames = series.frames(request.frames)
    quality = _quality(series, frames)
    sample = None
    if not quality.reason:
        sample = StackSample(
            key=series.task.key,
            s2=np.stack([frame.s2 for frame in frames]),
            mask=np.stack([frame.mask for frame in frames]),
            label=label,
            meta=_meta(series.task, frames, quality, request.s2_bands),
        )
    return Made(task=series.task, quality=quality, sample=sample)


def _quality(series: _Series, frames: Sequence[_Frame]) -> QualityReport:
    """Means over the frames; the most frequent reason where too few were good, of which the means are then."""
    reports = [frame.quality for frame in frames or series.good]
    clouds = [report.cloud_fraction for report in reports if report.cloud_fraction is not None]
    most = series.rejected.most_common(1)
    reason = f"too few dates: {most[0][0] if most else 'gap'}" if not frames else ""
    return QualityReport(
        valid_fraction=float(np.mean([report.valid_fraction for report in reports])) if reports else 0.0,
        cloud_fraction=float(np.mean(clouds)) if clouds else None,
        reason=reason,
    )


def _meta(task: StackTask, frames: Sequence[_Frame], quality: QualityReport, bands: Sequence[str]) -> SampleMeta:
    scenes = [frame.scenes for frame in frames]
    warped = np.logical_or.reduce([frame.warped for frame in frames])
    return SampleMeta(
        cell_id=task.cell.cell_id,
        epsg=task.cell.epsg,
        transform=task.cell.transform,
        center_lonlat=task.cell.center_lonlat,
        acquired=tuple(main.acquired for main, *_ in scenes),
        s1_acquired=(),
        scene_ids=scene_names("s2", scenes),
        gap_hours=None,
        backscatter=None,
        orbit_state=None,
        cloud_fraction=quality.cloud_fraction,
        valid_fraction=quality.valid_fraction,
        shift_px=None,
        resampled=resampled(bands, warped),
        classes=tuple(sorted({name for scene in task.labels for name in scene.classes})),
    )
