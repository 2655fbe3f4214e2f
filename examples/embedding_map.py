"""Make a map of embeddings: a COG whose red, green and blue are the three main axes of CROMA's tokens.

python train/embed.py --run runs/demo/croma --data runs/demo/data --sensor s2 --pooling tokens --out runs/demo/s2-tokens
python examples/embedding_map.py --tokens runs/demo/s2-tokens --out embeddings.tif
"""

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import webdataset
from numpy.typing import NDArray
from rasterio.transform import Affine

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """Where the tokens of one chip lie."""

    epsg: int
    """UTM zone."""
    left_m: float
    """Metres. Left edge."""
    top_m: float
    """Metres. Upper edge."""
    tokens: Array
    """(side, side, D)."""


def chips_of(folder: Path) -> list[Chip]:
    """Every chip whose tokens lie in `folder`."""
    shards = sorted(map(str, folder.glob("*.tar")))
    found = []
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode():
        tokens, place = sample["feature.npy"], sample["json"]["transform"]
        side = round(len(tokens) ** 0.5)
        found.append(
            Chip(
                epsg=sample["json"]["epsg"],
                left_m=place[2],
                top_m=place[5],
                tokens=tokens.reshape(side, side, -1),
            )
        )
    return found


def main_axes(rows: Array) -> tuple[Array, Array]:
    """Mean, and the three directions of largest variance: (D,), (D, 3)."""
    mean = rows.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(rows - mean, rowvar=False))
    return mean, vectors[:, :-4:-1]


def mosaic(chips: list[Chip], token_m: float) -> tuple[Array, Affine]:
    """Chips side by side, means where dates overlap: (D, H, W) with NaN where there is none, and its grid."""
    left, top = min(chip.left_m for chip in chips), max(chip.top_m for chip in chips)
    at = [(round((top - chip.top_m) / token_m), round((chip.left_m - left) / token_m)) for chip in chips]
    side, _, width = chips[0].tokens.shape
    rows, columns = (max(ends) + side for ends in zip(*at, strict=True))
    total, count = np.zeros((rows, columns, width)), np.zeros((rows, columns, 1))
    for chip, (row, column) in zip(chips, at, strict=True):
        total[row : row + side, column : column + side] += chip.tokens
        count[row : row + side, column : column + side] += 1
    with np.errstate(invalid="ignore"):
        return np.moveaxis(total / count, -1, 0), Affine(token_m, 0, left, 0, -token_m, top)


def as_colours(axes: Array) -> Array:
    """From the 2nd to the 98th percentile of each axis: (3, H, W) uint8, 0 where there is no chip."""
    low, high = np.nanpercentile(axes, [2, 98], axis=(1, 2), keepdims=True)
    return np.where(np.isnan(axes), 0, 1 + 254 * ((axes - low) / (high - low)).clip(0, 1)).astype(np.uint8)


def main() -> None:
    """Read tokens, find their main axes, write one COG of the UTM zone that has most chips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, required=True, help="what train/embed.py --pooling tokens wrote")
    parser.add_argument("--out", type=Path, default=Path("embeddings.tif"))
    asked = parser.parse_args()
    if not any(asked.tokens.glob("*.tar")):
        raise SystemExit(f"{asked.tokens} holds no tokens: write them with train/embed.py --pooling tokens")
    patch_px = json.loads((asked.tokens / "tokens.json").read_text())["recipe"]["model"]["patch"]
    chips = chips_of(asked.tokens)
    epsg, _ = Counter(chip.epsg for chip in chips).most_common(1)[0]
    tokens, grid = mosaic([chip for chip in chips if chip.epsg == epsg], 10.0 * patch_px)
    mean, directions = main_axes(tokens.reshape(len(tokens), -1)[:, ~np.isnan(tokens[0]).ravel()].T)
    colours = as_colours(np.tensordot(directions.T, tokens - mean[:, None, None], axes=1))
    shape = {"count": 3, "height": colours.shape[1], "width": colours.shape[2], "dtype": "uint8"}
    with rasterio.open(asked.out, "w", "COG", crs=f"EPSG:{epsg}", transform=grid, nodata=0, **shape) as target:
        target.write(colours)
    print(f"{asked.out}: {colours.shape[2]} x {colours.shape[1]} pixels of {10 * patch_px} m, EPSG:{epsg}")


if __name__ == "__main__":
    main()
