"""A decoder for `train/index.py`: the `bands` of one of TerraMesh's `zarr.zip` members.

"decoder": "terramesh:bands", with this folder on PYTHONPATH. Needs zarr, which the train side itself does without.
"""

import io
import zipfile
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer.cpu import Buffer
from zarr.storage import MemoryStore


def bands(data: bytes) -> NDArray[Any]:
    """(C, H, W): of several times, as in the shards that come from SSL4EO-S12, the first."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        stored = {name: Buffer.from_bytes(archive.read(name)) for name in archive.namelist()}
    found: Any = zarr.open_group(MemoryStore(stored), mode="r")["bands"]
    axes = found.attrs.get("_ARRAY_DIMENSIONS") or found.metadata.dimension_names or ("band", "y", "x")
    return np.asarray(found[tuple(0 if axis == "time" else slice(None) for axis in axes)])


DECODERS = (bands,)
"""What a data set may name of this module."""
