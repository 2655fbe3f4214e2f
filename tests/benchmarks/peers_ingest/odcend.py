"""From search to shards with odc-stac, as one would write it: pairs of S2 and S1 as a Zarr cube, tars and statistics.

`scene` loads the area's part of a scene at once and cuts chips out of it; `chips` loads each by itself, some at once.
The cells are given; pixels are the source's own, as ours are. Unlike ours it estimates no shift, and a run that is
killed begins anew.
"""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import odc.stac
import pystac_client
import webdataset
import zarr
from affine import Affine
from job import IN_FLIGHT
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from zarr.codecs import BloscCodec

S2 = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
BITS = {0: 1, 3: 8, 8: 4, 9: 4, 10: 4, 11: 16}
ROWS = 16
Chip = dict[str, Any]


def load(pair: Any, edges: tuple[float, float, float, float], job: Any, **how: Any) -> tuple[NDArray[Any], ...]:
    """S2 (12, H, W) without offset, S1 (2, H, W) in dB, and the classification of the box `edges`."""
    left, bottom, right, top = edges
    shape = round((top - bottom) / 10), round((right - left) / 10)
    how |= {"geobox": GeoBox(shape, Affine(10, 0, left, 0, -10, top), f"EPSG:{job['epsg']}")}
    optical = odc.stac.load([pair[0]], bands=[*S2, "SCL"], dtype="uint16", nodata=0, **how).isel(time=0)
    radar = odc.stac.load([pair[1]], bands=["vv", "vh"], dtype="float32", nodata=-32768, **how).isel(time=0)
    dn = np.stack([optical[name].values for name in S2])
    if pair[0].properties["s2:processing_baseline"] >= "04.00":
        dn = np.where(dn > 0, np.maximum(dn, 1001) - 1000, 0).astype("u2")
    power = np.stack([radar[name].values for name in ("vv", "vh")])
    return dn, np.where(power > 0, 10 * np.log10(np.maximum(power, 1e-5)), np.nan), optical["SCL"].values


def chips(pairs: list[Any], job: Any, way: str) -> Iterator[tuple[str, tuple[NDArray[Any], ...]]]:
    """Name and pixels of each."""
    size, cells = job["size"], job["cells"]
    lefts, tops = ([cell[side] for cell in cells] for side in (1, 2))
    area = min(lefts), min(tops) - 10 * size, max(lefts) + 10 * size, max(tops)
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        for pair in pairs:
            if way == "scene":
                whole = load(pair, area, job, pool=IN_FLIGHT)
                places = [(round((area[3] - top) / 10), round((left - area[0]) / 10)) for _, left, top in cells]
                found = [tuple(part[..., y : y + size, x : x + size] for part in whole) for y, x in places]
            else:
                boxes = [(left, top - 10 * size, left + 10 * size, top) for _, left, top in cells]
                found = list(pool.map(lambda box, pair=pair: load(pair, box, job), boxes))
            yield from ((f"{cell[0]}/{pair[0].id}", chip) for cell, chip in zip(cells, found, strict=True))


def main(job: Any, way: str) -> None:
    """Do the job of the command line."""
    api = pystac_client.Client.open(job["catalog"])
    searches = [api.search(collections=[name], bbox=job["bbox"]) for name in ("sentinel-2-l2a", "sentinel-1-rtc")]
    optical, radar = (sorted(found.items(), key=lambda item: item.datetime) for found in searches)
    optical = [item for item in optical if item.properties["proj:code"] == f"EPSG:{job['epsg']}"]
    nearest = [(item, min(radar, key=lambda one: abs(one.datetime - item.datetime))) for item in optical]
    pairs = [pair for pair in nearest if abs(pair[0].datetime - pair[1].datetime) <= timedelta(hours=job["gap"])]
    cube, count = zarr.open_group(job["out"] + "/cube.zarr", mode="w"), len(pairs) * len(job["cells"])
    how = {"compressors": BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")}
    for name, axes, dtype in (("s2", (12,), "u2"), ("s1", (2,), "f4"), ("mask", (), "u1")):
        shape = (*axes, job["size"], job["size"])
        cube.create_array(name, shape=(count, *shape), chunks=(1, *shape), shards=(ROWS, *shape), dtype=dtype, **how)
    histograms, sums, names, batch = np.zeros((12, 65536), np.int64), np.zeros((2, 3)), list[str](), list[Chip]()
    sink = webdataset.ShardWriter(job["out"] + "/%06d.tar", maxcount=64, verbose=0)
    for name, (dn, db, scl) in chips(pairs, job, way):
        mask = np.where((dn > 0).all(axis=0), 0, 1) | np.where(np.isnan(db).any(axis=0), 2, 0)
        mask = (mask | sum(np.where(scl == value, bit, 0) for value, bit in BITS.items())).astype("u1")
        seen, lost = (mask & 1) == 0, [(mask & bit > 0).mean() for bit in (1, 2)]
        if max(lost) > 0.01 or (mask[seen] & 4 > 0).mean() > job["cloud"]:
            continue
        sample = {"s2": dn, "s1": db, "mask": mask}
        sink.write({"__key__": name.replace("/", "-"), **{f"{key}.npy": value for key, value in sample.items()}})
        for band in range(12):
            histograms[band] += np.bincount(dn[band][(mask & 5) == 0], minlength=65536)
        good = db[:, (mask & 2) == 0].astype("f8")
        sums += np.stack([np.full(2, good.shape[1]), good.sum(axis=1), (good**2).sum(axis=1)], axis=1)
        names.append(name)
        batch.append(sample)
        if len(batch) == ROWS:
            flush(cube, batch, len(names))
    flush(cube, batch, len(names))
    sink.close()
    cube.attrs["names"] = names
    np.savez(job["out"] + "/statistics.npz", s2=histograms, s1=sums)


def flush(cube: Any, batch: list[Chip], end: int) -> None:
    """Write whole shards of the cube."""
    if batch:
        for name in batch[0]:
            cube[name][end - len(batch) : end] = np.stack([sample[name] for sample in batch])
        batch.clear()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2])
