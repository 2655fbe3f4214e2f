"""Features of a data set as files: pooled ones as one GeoParquet, tokens as WebDataset shards.

Rows are in index order; the same weights and data give the same bytes.
"""

import io
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import manifest, record
from pipeline.errors import UsageError
from pipeline.shard import pack
from pipeline.store import Store
from train.choices import Pooling, Sensor
from train.features import Encoder, check
from train.models.containers import File
from train.probes.labels import majority
from train.stream.samples import Chips, Samples, open_samples
from train.stream.sequence import Part, Reading, parts

SHARD_BYTES = 64 * 2**20
META_KEY = b"embedding"
TOKENS_NAME = "tokens.json"
"""Written last: without it the folder is not whole."""
_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Point"]}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to embed, how, and where to."""

    data: str
    """URL of a finished data set."""
    out: str
    """A `.parquet` file, or for tokens a folder; path or URL."""
    splits: tuple[str, ...]
    """Of the data set; empty ones are left out."""
    sensor: Sensor
    """Whose features."""
    pooling: Pooling
    """One vector a sample, or one a token."""
    batch: int
    """Samples at once."""
    threads: int
    """Readers."""


def embed(encoder: Encoder, request: Request, say: Callable[[str], None]) -> int:
    """Write the features of all samples; how many there were.

    Raises:
        UsageError: the model has no such features, or the data set no such samples.
    """
    check(encoder, request.sensor, request.pooling)
    store, bands = Store.at(request.data), encoder.bands(request.sensor)
    kind = encoder.run.stream.kind
    filled = [split for split in request.splits if manifest.load(store).samples(split)] or request.splits[:1]
    opened = [open_samples(store, split, kind=kind, bands=bands, told=True) for split in filled]
    facts = _facts(encoder, request, opened[0])
    say(f"normalised with the statistics of {facts['normalised_with']}")
    read = (
        (split, samples, part)
        for split, samples in zip(filled, opened, strict=True)
        for part in parts(samples, _reading(encoder, request, samples))
    )
    if request.pooling == "tokens":
        return _write_tokens(encoder, request, read, facts)
    return _write_pooled(encoder, request, read, facts)


def _reading(encoder: Encoder, request: Request, samples: Samples) -> Reading:
    constants, _ = encoder.constants(samples)
    return Reading(
        constants=constants,
        scale=encoder.run.stream.scale,
        multiple_px=encoder.patch_px,
        batch=request.batch,
        threads=request.threads,
    )


def _facts(encoder: Encoder, request: Request, samples: Samples) -> dict[str, Any]:
    _, whose = encoder.constants(samples)
    return {
        "recipe": record.to_json(encoder.run),
        "weights": encoder.known.origin,
        "index_sha256": samples.known.index_sha256,
        "normalised_with": whose,
        "sensor": request.sensor,
        "pooling": request.pooling,
    }


Read = Iterator[tuple[str, Samples, Part]]


def _write_pooled(encoder: Encoder, request: Request, read: Read, facts: Mapping[str, Any]) -> int:
    out = File.at(request.out)
    if not out.name.endswith(".parquet"):
        raise UsageError(f"--out {request.out}: pooled features are one .parquet file. Name it so.")
    rows: list[dict[str, Any]] = []
    for split, samples, part in read:
        features = encoder.features(part, request.sensor, request.pooling).float().numpy()
        rows += [
            _row(samples, i, chips, split) | {"feature": feature}
            for i, chips, feature in zip(part.ids, part.chips, features, strict=True)
        ]
    out.store.publish(out.name, _parquet(rows, facts))
    return len(rows)


def _row(samples: Samples, sample_id: int, chips: Chips, split: str) -> dict[str, Any]:
    known = {name: samples.rows[name][sample_id].as_py() for name in ("key", "group", "time", "lon", "lat")}
    meta = chips.meta
    times = [] if meta is None else list(meta.acquired)
    classes = [] if meta is None else list(meta.classes)
    geometry = struct.pack("<BIdd", 1, 1, known.pop("lon"), known.pop("lat"))
    label = None if chips.label is None else majority(chips.label)
    return {**known, "split": split, "times": times, "classes": classes, "label": label, "geometry": geometry}


def _parquet(rows: list[dict[str, Any]], facts: Mapping[str, Any]) -> bytes:
    values = np.stack([row.pop("feature") for row in rows])
    width = values.shape[1]
    table = pa.Table.from_pylist(rows, _SCHEMA)
    feature = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float32()), width)
    meta = {b"geo": json.dumps(_GEO).encode(), META_KEY: record.dumps(dict(facts))}
    buffer = io.BytesIO()
    pq.write_table(table.append_column("feature", feature).replace_schema_metadata(meta), buffer, compression="zstd")
    return buffer.getvalue()


_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "split": pa.string(),
        "group": pa.string(),
        "time": pa.timestamp("us", tz="UTC"),
        "times": pa.list_(pa.timestamp("us", tz="UTC")),
        "classes": pa.list_(pa.string()),
        "label": pa.int32(),
        "geometry": pa.binary(),
    }
)


def _write_tokens(encoder: Encoder, request: Request, read: Read, facts: Mapping[str, Any]) -> int:
    out, batch, count, number, size = Store.at(request.out), [], 0, 0, 0
    if out.names():
        raise UsageError(f"{out.url} is not empty: shards of tokens would mix. Give another --out.")
    for _, samples, part in read:
        features = encoder.features(part, request.sensor, request.pooling).float().numpy()
        for i, chips, tokens in zip(part.ids, part.chips, features, strict=True):
            members = {"feature.npy": _npy(tokens), "json": record.dumps(chips.meta)}
            batch.append((samples.key(i), members))
            size, count = size + sum(map(len, members.values())), count + 1
            if size >= SHARD_BYTES:
                out.publish(f"tokens-{number:05d}.tar", pack(batch)[0])
                batch, size, number = [], 0, number + 1
    if batch:
        out.publish(f"tokens-{number:05d}.tar", pack(batch)[0])
    out.publish(TOKENS_NAME, record.dumps({**facts, "samples": count}))
    return count


def _npy(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()
