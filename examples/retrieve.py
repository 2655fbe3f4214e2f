"""Find radar scenes by an optical image: the nearest in the space where CROMA compares both sensors.

python train/embed.py --run runs/demo/croma --data runs/demo/data --sensor s2 --pooling projected --out s2.parquet
python train/embed.py --run runs/demo/croma --data runs/demo/data --sensor s1 --pooling projected --out s1.parquet
python examples/retrieve.py --optical s2.parquet --radar s1.parquet
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray


def read(path: Path) -> tuple[list[str], NDArray[Any]]:
    """Keys, and their features at unit length: (N, D)."""
    table = pq.read_table(path)
    features = np.stack(table["feature"].to_numpy())
    return table["key"].to_pylist(), features / np.linalg.norm(features, axis=1, keepdims=True)


def main() -> None:
    """The nearest radar images of one optical image, and how often the right one comes first among all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optical", type=Path, required=True, help="projected features of S2")
    parser.add_argument("--radar", type=Path, required=True, help="projected features of S1, of the same data set")
    parser.add_argument("--query", help="key of an optical image (the first)")
    parser.add_argument("--top", type=int, default=5)
    asked = parser.parse_args()
    (keys, optical), (radar_keys, radar) = read(asked.optical), read(asked.radar)
    query = asked.query or keys[0]
    if query not in keys:
        parser.error(f"there is no {query} in {asked.optical}")
    similar = optical @ radar.T
    print(f"radar images nearest to {query}:")
    for one in np.argsort(-similar[keys.index(query)], kind="stable")[: asked.top]:
        mark = "  <- the right one" if radar_keys[one] == query else ""
        print(f"  {similar[keys.index(query), one]:.3f}  {radar_keys[one]}{mark}")
    first = np.mean([radar_keys[best] == key for key, best in zip(keys, similar.argmax(axis=1), strict=True)])
    print(f"the right one comes first for {first:.0%} of {len(keys)} images (by chance {1 / len(keys):.1%})")


if __name__ == "__main__":
    main()
