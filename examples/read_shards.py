"""Read shards with webdataset and blosc2 alone: nothing of this project is needed.

python examples/read_shards.py runs/demo/data
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import webdataset


def decoder(manifest: dict[str, Any]) -> Callable[[str, bytes], Any]:
    """What webdataset calls for each member: an array, or None for members that it decodes itself."""
    members = {f".{one['name']}.b2": (one["dtype"], one["shape"]) for one in manifest["members"]}

    def decode(suffix: str, data: bytes) -> Any:
        if suffix not in members:
            return None
        dtype, shape = members[suffix]
        return np.frombuffer(blosc2.decompress2(data), dtype).reshape(shape)

    return decode


def samples(data: Path, split: str) -> Iterator[dict[str, Any]]:
    """Samples of a data set that was written with `--codec b2`, the default, in shard order."""
    manifest = json.loads((data / "manifest.json").read_text())
    urls = [str(data / shard["path"]) for shard in manifest["shards"] if shard["split"] == split]
    if urls:
        yield from webdataset.WebDataset(urls, shardshuffle=False).decode(decoder(manifest))


def main() -> None:
    """A line for each sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a data set that `ingest build-shards` finished")
    parser.add_argument("--split", default="val")
    asked = parser.parse_args()
    for sample in samples(asked.data, asked.split):
        s2, s1, meta = sample["s2.b2"], sample["s1.b2"], sample["json"]
        valid = sample["mask.b2"] & 1 == 0
        print(
            f"{sample['__key__']}  {s2.shape} {s2.dtype}  {s1.shape} {s1.dtype}  "
            f"red {s2[3][valid].mean() * 1e-4:.3f}  VV {np.nanmean(s1[0]):.1f} dB  gap {meta['gap_hours']:.1f} h"
        )


if __name__ == "__main__":
    main()
