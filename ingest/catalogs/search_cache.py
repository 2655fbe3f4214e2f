"""What a STAC API answered, kept in the run folder: each question as JSON, its items as stac-geoparquet beside it.

A search that was killed goes on where it was, and a plan can be traced to what the catalog said on which day. Items are
always used as they come out of here, kept or not, so that a search that was interrupted finds the same.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from ingest.areas.aoi import DateRange, parse_dates
from ingest.catalogs.hrefs import unsigned
from ingest.catalogs.partition import Part
from ingest.scenes.scene import Item
from pipeline.errors import redact
from pipeline.store import Store

FOLDER = "catalog"
"""In the run folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """To one question."""

    items: Sequence[Item]
    """Items, without signatures."""
    cut: Sequence[Part] = ()
    """Questions to ask instead, where there was too much for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCache:
    """The answers of one catalog."""

    store: Store | None
    """The run folder; None keeps nothing."""
    catalog: str
    """Address of the API."""

    def load(self, part: Part) -> Answer | None:
        """The answer to `part`, if it was asked before."""
        if self.store is None:
            return None
        name = self._name(part)
        try:
            question = json.loads(self.store.read(f"{name}.json"))
            table = self.store.read(f"{name}.parquet") if question["items"] and "features" not in question else b""
        except (FileNotFoundError, ValueError):
            return None
        spans = [parse_dates(span) for span in question["cut"]]
        items = _decode(table) if table else question.get("features", [])
        return Answer(items=items, cut=[replace(part, dates=span) for span in spans])

    def keep(self, part: Part, answer: Answer) -> Answer:
        """Keep the answer to `part`; the answer as it will be loaded.

        Raises:
            CatalogError: pixels are behind a signature.
        """
        items = [unsigned(item) for item in answer.items]
        table = _encode(items) if items else b""
        question: dict[str, Any] = {
            "catalog": redact(self.catalog),
            "collections": [part.collection],
            "bbox": part.box,
            "datetime": part.stac_datetime(),
            "asked": datetime.now(UTC).isoformat(timespec="seconds"),
            "items": len(items),
            "cut": [_span(one.dates) for one in answer.cut],
        }
        if table is None:
            question["features"] = items
        if self.store is not None:
            name = self._name(part)
            if table:
                self.store.publish(f"{name}.parquet", table)
            self.store.publish(f"{name}.json", json.dumps(question, indent=1).encode())
        return replace(answer, items=_decode(table) if table else items)

    def _name(self, part: Part) -> str:
        question = redact(self.catalog), part.collection, part.box, _span(part.dates)
        return f"{FOLDER}/{part.collection.replace('/', '-')}-{sha256(repr(question).encode()).hexdigest()[:12]}"


def _span(dates: DateRange) -> str:
    return f"{dates.start or '..'}/{dates.end or '..'}"


def _encode(items: list[dict[str, Any]]) -> bytes | None:
    """As stac-geoparquet; None for items that do not fit into its columns, such as one without geometry."""
    import rustac

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"
        try:
            rustac.write_sync(str(path), items)
        except rustac.RustacError:
            return None
        return path.read_bytes()


def _decode(table: bytes) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import rustac

    features: list[dict[str, Any]] = rustac.from_arrow(pq.read_table(pa.BufferReader(table)))["features"]
    return [unsigned(item) for item in features]
