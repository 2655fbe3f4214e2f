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
from ingest.pixels.mosaic import Image, Refused, compose
from ingest.pixels.quality import QualityReport, judge, refused
from ingest.pixels.raster import Coordinates
from ingest.plan import StackTask, Unit
from ingest.request import Request, spacing
from ingest.scenes.scene import Scene
from ingest.scenes.spacing import Spacing, chain, lengths
from ingest.sensors import mask_of, read_labels, read_s1, read_s2
from pipeline.bands import S1_NAMES
from pipeline.sample import SampleMeta, StackSample


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """One date of one cell."""

    s2: Image
    """Digital numbers."""
    s1: Image | None
    """dB; None without radar."""
    mask: NDArray[np.uint8]
    """(H, W)."""
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
        return [frame.s2.scenes[0].acquired for frame in self.good]

    def candidate(self, scene: Scene) -> Scene | None:
        """The task's candidate of that name, with what fills it on this cell; None where it has none."""
        return next((one for one in self.task.candidates if one.scene_id == scene.scene_id), None)

    def radar(self, scene: Scene) -> Scene | None:
        """The S1 scene of the candidate of that name; None without radar."""
        both = zip(self.task.candidates, self.task.radar, strict=bool(self.task.radar))
        return next((s1 for s2, s1 in both if s2.scene_id == scene.scene_id), None)

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
        ReadError: an asset could not be read this time. What can never be read rejects its chips.
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
        yield _made(one, request, labels[i] if labels else None)


def _read(scene: Scene, wanting: Sequence[_Series], request: Request, shared: Coordinates) -> None:
    """Offer a date to the series; the radar is read for those whose optical image is good."""
    cells = [one.task.cell for one in wanting]
    images = compose(
        [one.candidate(scene) or scene for one in wanting],
        lambda part, at: read_s2(part, [cells[i] for i in at], request=request, shared=shared),
    )
    frames: list[_Frame | Refused] = [
        image if isinstance(image, Refused) else _frame(image, None, request) for image in images
    ]
    good = [i for i, frame in enumerate(frames) if isinstance(frame, _Frame) and not frame.quality.reason]
    partners = {i: s1 for i in good if (s1 := wanting[i].radar(scene))}
    places = list(partners)
    radar = compose(
        list(partners.values()), lambda part, at: read_s1(part, [cells[places[i]] for i in at], shared=shared)
    )
    for i, image in zip(places, radar, strict=True):
        frame = frames[i]
        if isinstance(frame, _Frame):
            frames[i] = image if isinstance(image, Refused) else _frame(frame.s2, image, request)
    for one, frame in zip(wanting, frames, strict=True):
        one.offer(frame)


def _frame(s2: Image, s1: Image | None, request: Request) -> _Frame:
    mask, cloud = mask_of(s2, np.ones_like(s2.valid) if s1 is None else s1.valid, request)
    limits = {"max_nodata": request.max_nodata_percent / 100, "max_cloud": request.max_cloud_percent / 100}
    return _Frame(s2=s2, s1=s1, mask=mask, quality=judge(mask, cloud, **limits))


def _made(series: _Series, request: Request, label: NDArray[np.uint8] | Refused | None) -> Made:
    if isinstance(label, Refused):
        return Made(task=series.task, quality=refused(label), sample=None)
    frames = series.frames(request.frames)
    quality = _quality(series, frames)
    sample = None
    if not quality.reason:
        radar = _radar(frames)
        sample = StackSample(
            key=series.task.key,
            s2=np.stack([frame.s2.data for frame in frames]).astype("<u2", copy=False),
            s1=np.stack([s1.data for s1 in radar]).astype("<f4", copy=False) if radar else None,
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


def _radar(frames: Sequence[_Frame]) -> list[Image]:
    return [frame.s1 for frame in frames if frame.s1 is not None]


def _meta(task: StackTask, frames: Sequence[_Frame], quality: QualityReport, bands: Sequence[str]) -> SampleMeta:
    optical, radar = [frame.s2.scenes for frame in frames], [image.scenes for image in _radar(frames)]
    warped = np.logical_or.reduce([frame.s2.warped for frame in frames])
    both = zip(optical, radar, strict=bool(radar))
    gaps = [abs((s1.acquired - s2.acquired).total_seconds()) / 3600 for (s2, *_), (s1, *_) in both]
    names = resampled(bands, warped)
    if radar:
        names += resampled(S1_NAMES, np.logical_or.reduce([image.warped for image in _radar(frames)]))
    return SampleMeta(
        cell_id=task.cell.cell_id,
        epsg=task.cell.epsg,
        transform=task.cell.transform,
        center_lonlat=task.cell.center_lonlat,
        acquired=tuple(main.acquired for main, *_ in optical),
        s1_acquired=tuple(main.acquired for main, *_ in radar),
        scene_ids=scene_names("s2", optical) | (scene_names("s1", radar) if radar else {}),
        offsets={name: words for frame in frames for name, words in frame.s2.offsets.items()},
        gap_hours=max(gaps, default=None),
        backscatter=radar[0][0].backscatter if radar else None,
        orbit_state=radar[0][0].orbit_state if radar else None,
        cloud_fraction=quality.cloud_fraction,
        valid_fraction=quality.valid_fraction,
        shift_px=None,
        resampled=names,
        classes=tuple(sorted({name for scene in task.labels for name in scene.classes})),
    )
