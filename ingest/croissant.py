"""`croissant.json`: the data set in MLCommons Croissant 1.0 (JSON-LD), for catalogs and loaders that know no other.

Its records are the rows of the index and of the table of chips; the shards are named as a set of files. Source: the
Croissant format specification 1.0, https://docs.mlcommons.org/croissant/docs/croissant-spec.html.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest import chips
from pipeline.index import INDEX_NAME
from pipeline.manifest import Manifest

NAME = "croissant.json"
LICENSE = "https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice"
"""Of the pixels; label collections have their own."""
_CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that the specification prints."""
_FIELDS: Mapping[str, Mapping[str, str]] = {
    INDEX_NAME: {
        "key": "Name of the sample in its shard",
        "shard": "Tar that holds it",
        "split": "train or val",
        "group": "Block of ground; all samples of one are on the same side of the split",
        "lon": "Degrees. Centre of the chip",
        "lat": "Degrees. Centre of the chip",
        "time": "Acquisition of the (first) Sentinel-2 image",
        "gap_hours": "Hours between Sentinel-2 and Sentinel-1",
        "cloud": "Share of cloudy pixels",
    },
    chips.NAME: {
        "id": "Name of the chip, or of the cell that has none",
        "status": "accepted, rejected or left out",
        "reason": "Why it was rejected or left out",
        "proj:code": "Coordinate reference system of the pixels",
    },
}
_TYPES = {"lon": "sc:Float", "lat": "sc:Float", "gap_hours": "sc:Float", "cloud": "sc:Float", "time": "sc:DateTime"}


def dumps(built: Manifest, files: Mapping[str, bytes]) -> bytes:
    """The document of the data set `built`; `files` are its index and its table of chips.

    Equal data sets give equal bytes: there is no date in it.
    """
    described = {name: names for name, names in _FIELDS.items() if _columns(files[name]) >= set(names)}
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"sentinel-{built.kind}s-{built.plan_fingerprint[:12]}",
        "description": _description(built),
        "license": LICENSE,
        "creator": {"@type": "sc:Organization", "name": "European Union, Copernicus programme"},
        "citeAs": f"Contains modified Copernicus Sentinel data, processed with {built.created_by}",
        "version": "1.0.0",
        "distribution": [*(_file(name, data) for name, data in files.items()), _SHARDS],
        "recordSet": [_record_set(name, names) for name, names in described.items()],
    }
    return json.dumps(document, indent=1, sort_keys=True).encode()


_SHARDS = {
    "@type": "cr:FileSet",
    "@id": "shards",
    "name": "shards",
    "description": "WebDataset shards; manifest.json has the size and SHA-256 of each",
    "encodingFormat": "application/x-tar",
    "includes": "shards/*/*.tar",
}


def _description(built: Manifest) -> str:
    what = {"pair": "co-registered Sentinel-1 and Sentinel-2 chips", "stack": "time series of Sentinel-2 chips"}
    return (
        f"{built.counts.get('accepted', 0)} {what[built.kind]} of {built.chip_px} x {built.chip_px} pixels of 10 m: "
        f"{built.samples('train')} for training, {built.samples('val')} for validation. "
        f"Sentinel-2 bands {' '.join(built.s2_bands)} as digital numbers"
        + (f"; Sentinel-1 {' '.join(built.s1_bands)} in dB." if built.s1_bands else ".")
    )


def _columns(parquet: bytes) -> set[str]:
    return set(pq.read_schema(pa.BufferReader(parquet)).names)


def _file(name: str, data: bytes) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{len(data)} B",
        "encodingFormat": "application/x-parquet",
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _record_set(file: str, names: Mapping[str, str]) -> dict[str, Any]:
    stem = file.partition(".")[0]
    name = {"index": "samples"}.get(stem, stem)
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{name}/{column}",
                "name": f"{name}/{column}",
                "description": said,
                "dataType": _TYPES.get(column, "sc:Text"),
                "source": {"fileObject": {"@id": file}, "extract": {"column": column}},
            }
            for column, said in names.items()
        ],
    }
