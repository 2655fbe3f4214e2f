"""Train on shards that others wrote: a few tars in another layout, the map that explains them, an index, a run.

python examples/foreign_shards.py --out runs/foreign
python train/index.py --tars 'runs/foreign/tars/*.tar' --map runs/foreign/map.json --out runs/foreign/indexed
python train/croma.py --recipe tiny --data runs/foreign/indexed --out runs/foreign/croma --batch 8 --steps 4
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

BANDS = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
MAP = {
    "s2": {"suffix": "optical.npy", "scale": 10000, "bands": BANDS},
    "s1": {"suffix": "radar.npz", "bands": ["VV", "VH"], "decoder": "npz:power", "quantity": "power", "nodata": 0},
    "meta": {"suffix": "json", "lon": "centre.0", "lat": "centre.1"},
    "split": {"val_percent": 20},
}
"""Optical reflectance of which 1 is 10,000 digital numbers, radar as linear power, places in the json."""


def sample(number: int, chip_px: int = 120) -> dict[str, Any]:
    """Stripes whose direction both sensors share, in somebody else's layout."""
    draw = np.random.default_rng(number)
    y, x = np.mgrid[:chip_px, :chip_px] / draw.uniform(8, 40)
    angle = draw.uniform(0, np.pi)
    stripes = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)))
    gains = np.linspace(0.02, 0.1, len(BANDS))[:, None, None]
    return {
        "__key__": f"chip_{number:04d}",
        "optical.npy": (0.15 + gains * stripes).astype(np.float32),
        "radar.npz": {"power": (10 ** ((-12 + 4 * stripes[None].repeat(2, axis=0)) / 10)).astype(np.float32)},
        "json": {"centre": [10 + number * 0.1, 48.0]},
    }


def main() -> None:
    """Write tars and map."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder for tars/ and map.json")
    parser.add_argument("--samples", type=int, default=64)
    asked = parser.parse_args()
    (asked.out / "tars").mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(f"{asked.out}/tars/%04d.tar", maxcount=25, verbose=0) as shards:
        for number in range(asked.samples):
            shards.write(sample(number))
    (asked.out / "map.json").write_text(json.dumps(MAP, indent=2))
    print(f"{asked.out}/tars: {asked.samples} samples; {asked.out}/map.json says what they are")


if __name__ == "__main__":
    main()
