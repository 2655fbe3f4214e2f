"""Who is near whom: for CROMA the optical images that a radar image finds, for SatMAE the images that an image finds.

Axes: N samples, K hits, D width.
"""

from collections.abc import Mapping, Sequence
from html import escape
from math import asin, cos, radians, sin, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipeline.page.document import Number, table
from pipeline.page.pictures import optical, radar
from train.features import Encoder
from train.probes.neighbours import recall
from train.probes.online import PROJECTED
from train.reporting import reading, words
from train.reporting.encoded import RANDOM, TRAINED, Look
from train.reporting.intervals import wilson

QUERIES, HITS = 6, 5
RECALLS = (1, 5, 10)
_WIDEST_PX = 128
_EARTH_KM = 6371.0
_SAME_KM = 0.05
_WHO = {"s1": "Sentinel-1", "s2": "Sentinel-2"}


def section(encoder: Encoder, found: Look) -> str:
    """The contact sheet, and for CROMA the table of recalls."""
    if len(found.ids) < 2:
        return words.absent("the validation split has fewer than two samples: there is nobody to find.")
    features = found.features[TRAINED]
    if PROJECTED[0] not in features:
        return _sheet(encoder, found, features["s2"], features["s2"], cross=False) + words.told(
            "neighbours that look alike in what matters (land, season, field patterns) and lie apart.",
            "the same few images as everybody's neighbours, or neighbours that share a date and nothing else.",
        )
    queries, gallery = (features[name] for name in PROJECTED)
    return (
        "<p>Left: a radar image of the validation split. Then the optical images nearest to it by the features that "
        "the contrastive loss compares, nearest first; the one of the same place and time is outlined in green.</p>"
        + _sheet(encoder, found, queries, gallery, cross=True)
        + words.told(
            "the green outline at the left end of the row, and wrong hits that show the same kind of land.",
            "the same optical images in every row: features have collapsed, or the model tells dates and not places.",
        )
        + recalls(found)
    )


def recalls(found: Look) -> str:
    """How often the right one is among the first hits, trained and untrained, with intervals."""
    count, rows, here = len(found.ids), [], []
    for title, pair in (("radar finds optical", PROJECTED), ("optical finds radar", PROJECTED[::-1])):
        by = {who: recall(*(found.features[who][name] for name in pair), at=RECALLS) for who in (TRAINED, RANDOM)}
        for k in RECALLS:
            low, high = wilson(by[TRAINED][k], count)
            others = {RANDOM: by[RANDOM][k], "chance": min(1.0, k / count)}
            here.append(f"{title}, first {k}: {reading.beside(by[TRAINED][k], (low, high), others)}")
            rows.append(
                (
                    title,
                    Number(str(k)),
                    Number(f"{by[TRAINED][k]:.3f}"),
                    Number(f"{low:.3f} to {high:.3f}"),
                    *(Number(f"{other:.3f}") for other in others.values()),
                )
            )
    return (
        f"<h3>Recall among {count} validation samples</h3>"
        + table(("", "among the first", "trained", "95 % interval", "untrained", "by chance"), rows)
        + words.told(
            "the trained model's interval above chance and above the untrained model.",
            "intervals that hold chance: either nothing was learned, or there are too few samples to say so.",
            " ".join((here[0], here[sum(k < count for k in RECALLS) - 1])) if count > RECALLS[0] else "",
        )
    )


def nearest(queries_ND: Tensor, gallery_ND: Tensor, *, count: int, own: bool) -> Tensor:
    """The nearest of the gallery by cosine, (N, K) int64, nearest first; ties in order.

    Args:
        queries_ND: features.
        gallery_ND: features of the same samples.
        count: K.
        own: whether a sample may find itself.
    """
    similarity_NN = functional.normalize(queries_ND, dim=1) @ functional.normalize(gallery_ND, dim=1).T
    if not own:
        similarity_NN.fill_diagonal_(-torch.inf)
    return similarity_NN.argsort(dim=1, descending=True, stable=True)[:, :count]


def kilometres(one: Sequence[float], other: Sequence[float]) -> float:
    """Between two (lon, lat), along a great circle."""
    (lon, lat), (lon2, lat2) = ([radians(x) for x in point] for point in (one, other))
    half = sin((lat2 - lat) / 2) ** 2 + cos(lat) * cos(lat2) * sin((lon2 - lon) / 2) ** 2
    return 2 * _EARTH_KM * asin(sqrt(half))


def own_places(queries_ND: Tensor, gallery_ND: Tensor) -> list[int]:
    """(N,) at which hit each sample finds its own image, from 1; of equally near ones the own one comes last."""
    similarity_NN = functional.normalize(queries_ND, dim=1) @ functional.normalize(gallery_ND, dim=1).T
    places: list[int] = (similarity_NN >= similarity_NN.diagonal()[:, None]).sum(dim=1).tolist()
    return places


def _sheet(encoder: Encoder, found: Look, queries: Tensor, gallery: Tensor, *, cross: bool) -> str:
    count = len(found.ids)
    hits_NK = nearest(queries, gallery, count=min(HITS, count - (not cross)), own=cross).tolist()
    places = own_places(queries, gallery)
    thumbnails = _Thumbnails(encoder, found)
    rows = []
    for query in (i * count // min(QUERIES, count) for i in range(min(QUERIES, count))):
        said = f"asked; its own image is hit {places[query]} of {count}" if cross else "asked"
        asker = "s1" if cross else "s2"
        figures = [_figure(thumbnails.of(query, asker), asker, _words(said, found, query), kind="asked")]
        for hit in hits_NK[query]:
            right = cross and hit == query
            told = "its own image" if right else _apart(found, query, hit)
            figures.append(
                _figure(thumbnails.of(hit, "s2"), "s2", _words(told, found, hit), kind="right" if right else "hit")
            )
        rows.append(f'<div class="query">{"".join(figures)}</div>')
    return "".join(rows)


def _apart(found: Look, one: int, other: int) -> str:
    apart = kilometres(found.lonlat_N2[one].tolist(), found.lonlat_N2[other].tolist())
    if apart != apart:  # noqa: PLR0124  NaN: the place is not known
        return "at an unknown place"
    return f"{apart:.1f} km away" if apart > _SAME_KM else "same place, other date"


def _words(said: str, found: Look, number: int) -> str:
    cover = found.covers[number]
    return said if cover.label is None else f"{said}; {cover}"


def _figure(rgb: NDArray[np.uint8], sensor: str, said: str, *, kind: str) -> str:
    picture = words.image(rgb, f"{_WHO[sensor]}, {kind}: {said}")
    return f'<figure class="{kind}">{picture}<figcaption>{escape(said)}</figcaption></figure>'


class _Thumbnails:
    """Pictures of samples, each read once."""

    def __init__(self, encoder: Encoder, found: Look) -> None:
        self._encoder, self._found = encoder, found
        self._known: dict[int, Mapping[str, NDArray[np.uint8]]] = {}

    def of(self, number: int, sensor: str) -> NDArray[np.uint8]:
        """Of the sample with this place among those that were looked at; of a stack its first date."""
        if number not in self._known:
            self._known[number] = self._read(number)
        return self._known[number][sensor]

    def _read(self, number: int) -> dict[str, NDArray[np.uint8]]:
        stream = self._encoder.run.stream
        images = self._found.samples.read(self._found.ids[number]).images
        found = {}
        for sensor, image in images.items():
            first_CHW = image[0] if image.ndim == 4 else image
            cut_CHW = first_CHW if stream.augment.resizes else _middle(first_CHW, stream.image_px)
            rgb = radar(cut_CHW) if sensor == "s1" else optical(cut_CHW, stream.bands[sensor])
            step = -(-rgb.shape[0] // _WIDEST_PX)
            found[sensor] = np.ascontiguousarray(rgb[::step, ::step])
        return found


def _middle(image_CHW: NDArray[Any], side: int) -> NDArray[Any]:
    """As the model sees it."""
    top, left = ((whole - side) // 2 for whole in image_CHW.shape[-2:])
    return image_CHW[..., top : top + side, left : left + side]
