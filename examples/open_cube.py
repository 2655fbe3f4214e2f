"""Open the cube with xarray alone, and plot chips: true colour above, radar below.

python examples/open_cube.py runs/demo/data --out cube.png
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure


def plot(cube: xr.Dataset, count: int) -> Figure:
    """Chips spread over the accepted ones, each in pixels of 10 m of its own UTM zone."""
    accepted = np.flatnonzero(cube.accepted.values)
    count = min(count, len(accepted))
    chosen = cube.isel(sample=accepted[:: len(accepted) // count][:count]).load()
    figure, axes = plt.subplots(2, count, figsize=(2.4 * count, 5), squeeze=False, layout="constrained")
    for number, column in enumerate(axes.T):
        one = chosen.isel(sample=number)
        red_green_blue = one.s2.sel(band=["B04", "B03", "B02"]) * 1e-4
        red_green_blue.clip(0, 0.3).plot.imshow(ax=column[0], rgb="band", yincrease=False, vmin=0, vmax=0.3)
        one.s1.sel(polarisation="VV").plot.imshow(
            ax=column[1], cmap="gray", vmin=-22, vmax=0, yincrease=False, add_colorbar=False
        )
        column[0].set_title(str(one.time.dt.strftime("%Y-%m-%d").item()))
        column[1].set_title(f"EPSG:{one.epsg.item()}")
        for axis in column:
            axis.set(xlabel="", ylabel="", xticks=[], yticks=[], aspect="equal")
    return figure


def main() -> None:
    """Print the cube, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a data set that `ingest build-shards` finished: a folder or any fsspec URL")
    parser.add_argument("--out", type=Path, default=Path("cube.png"))
    parser.add_argument("--count", type=int, default=6)
    asked = parser.parse_args()
    cube = xr.open_zarr(f"{asked.data}/cube.zarr")
    print(cube)
    plot(cube, asked.count).savefig(asked.out, dpi=100)


if __name__ == "__main__":
    main()
