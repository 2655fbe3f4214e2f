"""Scenes of one pass → one image of each cell: every pixel is wholly from one scene, the first that has it.

Strips and slices overlap or leave wedges without data. Each is brought to the cell's grid alone, so nothing is averaged
across a seam; what is warped next to missing data takes no part of it either (`warp`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.scenes.scene import Scene

UNCLASSIFIED = 7
"""Class of the scene classification where one of several scenes has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Bands of one scene on n cells."""

    data: NDArray[np.generic]
    """(n, C, H, W) in stored units."""
    valid: NDArray[np.bool_]
    """(n, H, W) all bands have data."""
    warped: NDArray[np.bool_]
    """(n, C) whether a band was interpolated."""
    offset: str = ""
    """What was added to the digital numbers and by which rule: `-1000 baseline`; empty for radar."""
    scl: NDArray[np.generic] | None = None
    """(n, H, W) scene classification; None where the product has none."""
    cloud_percent: NDArray[Any] | None = None
    """(n, H, W) percent. Probability of cloud; None where the product has none or nobody asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Bands of one sensor on one cell."""

    data: NDArray[np.generic]
    """(C, H, W) in stored units."""
    valid: NDArray[np.bool_]
    """(H, W) all bands have data."""
    warped: NDArray[np.bool_]
    """(C,) whether a band was interpolated anywhere."""
    scl: NDArray[np.generic] | None
    """(H, W) scene classification."""
    cloud_percent: NDArray[Any] | None
    """(H, W) percent. Probability of cloud."""
    offsets: Mapping[str, str]
    """By id of the scenes that gave a pixel: what was added to the digital numbers and by which rule."""
    scenes: tuple[Scene, ...]
    """Those that gave a pixel, the main one always and first."""

    @property
    def known(self) -> NDArray[np.bool_]:
        """(H, W) where there is data, and the classification does not say that there is none."""
        return self.valid if self.scl is None else self.valid & (self.scl != 0)


Refused = str
"""Why a scene cannot be used, in words."""
Read = Callable[[Scene, Sequence[int]], Block | Refused]
"""Bands of one scene on the cells at these positions."""


def compose(scenes: Sequence[Scene], read: Read) -> list[Image | Refused]:
    """The cells' images; each distinct scene is read once, for all cells that need it.

    Args:
        scenes: n scenes, one a cell, with those that fill them.
        read: called with a scene and ascending positions among the n.

    Returns:
        n images, or why a cell has none: one of its scenes was refused.
    """
    places: dict[str, list[int]] = {}
    distinct: dict[str, Scene] = {}
    for i, scene in enumerate(scenes):
        for part in scene.parts:
            places.setdefault(part.scene_id, []).append(i)
            distinct.setdefault(part.scene_id, part)
    blocks = {name: read(distinct[name], places[name]) for name in sorted(distinct)}
    return [_composed(scene, _blocks_of(scene, i, blocks, places)) for i, scene in enumerate(scenes)]


def _blocks_of(
    scene: Scene, position: int, blocks: Mapping[str, Block | Refused], places: Mapping[str, Sequence[int]]
) -> list[Image] | Refused:
    images: list[Image] = []
    for part in scene.parts:
        block = blocks[part.scene_id]
        if isinstance(block, Refused):
            return block
        images.append(_image(part, block, places[part.scene_id].index(position)))
    return images


def _image(scene: Scene, block: Block, i: int) -> Image:
    return Image(
        data=block.data[i],
        valid=block.valid[i],
        warped=block.warped[i],
        scl=None if block.scl is None else block.scl[i],
        cloud_percent=None if block.cloud_percent is None else block.cloud_percent[i],
        offsets={scene.scene_id: block.offset} if block.offset else {},
        scenes=(scene,),
    )


def _composed(scene: Scene, images: list[Image] | Refused) -> Image | Refused:
    if isinstance(images, Refused):
        return images
    main = replace(images[0], scenes=(scene,))
    for other in images[1:]:
        takes = other.known & ~main.known
        if takes.any():
            main = _filled(main, other, takes)
    return main


def _filled(main: Image, other: Image, takes: NDArray[np.bool_]) -> Image:
    return Image(
        data=np.where(takes, other.data, main.data),
        valid=main.valid | takes,
        warped=main.warped | other.warped,
        scl=_either(main.scl, other.scl, takes, missing=UNCLASSIFIED),
        cloud_percent=_either(main.cloud_percent, other.cloud_percent, takes, missing=0),
        offsets={**main.offsets, **other.offsets},
        scenes=main.scenes + other.scenes,
    )


def _either(
    main: NDArray[np.generic] | None, other: NDArray[np.generic] | None, takes: NDArray[np.bool_], *, missing: int
) -> NDArray[np.generic] | None:
    if main is None and other is None:
        return None
    return np.where(takes, missing if other is None else other, missing if main is None else main).astype(np.uint8)
