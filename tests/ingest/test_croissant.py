"""The document has what the specification asks for, and its records are the rows of the files that it names."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ingest.build import build
from ingest.request import Request

pytestmark = pytest.mark.ingest
REQUIRED: dict[str, set[str]] = {
    "sc:Dataset": {"@context", "conformsTo", "name", "description", "license", "creator", "version", "distribution"},
    "cr:FileObject": {"@id", "name", "contentUrl", "encodingFormat", "sha256"},
    "cr:FileSet": {"@id", "name", "includes", "encodingFormat"},
    "cr:RecordSet": {"@id", "name", "field"},
    "cr:Field": {"@id", "name", "dataType", "source"},
}
"""What Croissant 1.0 requires or recommends of each type."""


@pytest.fixture(scope="module", params=["pair", "stack"])
def out(request: pytest.FixtureRequest, make_request: Callable[..., Request], tmp_path_factory: Any) -> Path:
    stack = {"kind": "stack", "s1": (), "max_gap_hours": 0.0, "frames": 2, "min_gap_hours": 24.0}
    changes: dict[str, Any] = stack if request.param == "stack" else {}
    path = Path(tmp_path_factory.mktemp(request.param) / "out")
    build(make_request(**changes), str(path), workers=0)
    return path


def _walk(value: Any) -> Any:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _walk(item)


def test_required_fields(out: Path) -> None:
    document = json.loads((out / "croissant.json").read_text())
    typed = [one for one in _walk(document) if one.get("@type") in REQUIRED]
    assert {one["@type"] for one in typed} == set(REQUIRED)
    for one in typed:
        assert REQUIRED[one["@type"]] <= set(one), one["@type"]
    names = [one["@id"] for one in typed if "@id" in one]
    assert len(names) == len(set(names))


def test_files_and_columns_are_there(out: Path) -> None:
    document = json.loads((out / "croissant.json").read_text())
    files = {one["@id"]: one for one in document["distribution"] if one["@type"] == "cr:FileObject"}
    for one in files.values():
        data = (out / one["contentUrl"]).read_bytes()
        assert (one["sha256"], one["contentSize"]) == (hashlib.sha256(data).hexdigest(), f"{len(data)} B")
    for records in document["recordSet"]:
        for field in records["field"]:
            columns = pq.read_schema(out / field["source"]["fileObject"]["@id"]).names
            assert field["source"]["extract"]["column"] in columns
    shards = next(one for one in document["distribution"] if one["@type"] == "cr:FileSet")
    assert sorted(out.glob(shards["includes"])) == sorted((out / "shards").rglob("*.tar"))


def test_mlcroissant_reads_the_records(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlcroissant = pytest.importorskip("mlcroissant", reason="an oracle that the project does not need")
    dataset = mlcroissant.Dataset(jsonld=out / "croissant.json")  # raises what is wrong
    records = list(dataset.records("samples"))
    rows = pq.read_table(out / "index.parquet").to_pylist()
    assert [one["samples/key"].decode() for one in records] == [row["key"] for row in rows]
    assert [one["samples/lon"] for one in records] == [row["lon"] for row in rows]
