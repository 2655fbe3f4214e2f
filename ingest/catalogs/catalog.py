"""Where scenes are found: a STAC API, a static catalog, or a stac-geoparquet file. One question, one answer.

In: the address, the collections, the areas, the dates. Out: what the caller makes of each item, once, in a fixed order;
hrefs are absolute and unsigned. An API is asked part by part; the other two need no server. What any of them gives is
filtered here: no server's filter is trusted.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import shapely
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from ingest.areas.aoi import DateRange
from ingest.catalogs import stac_api
from ingest.catalogs.hrefs import absolute, join, unsigned
from ingest.catalogs.partition import parts
from ingest.catalogs.profiles import address_of
from ingest.catalogs.search_cache import SearchCache
from ingest.scenes.scene import Item, interval
from pipeline.errors import CatalogError, PretrainError, UsageError, redact
from pipeline.store import Store

T = TypeVar("T")
BATCH = 200
"""Rows of a table that are made JSON at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What is searched for."""

    collections: Sequence[str]
    areas: Sequence[BaseGeometry]
    dates: DateRange


def search(
    catalog: str,
    collections: Sequence[str],
    *,
    areas: Sequence[BaseGeometry],
    dates: DateRange,
    kept_in: Store | None = None,
    parse: Callable[[Item], T],
) -> list[T]:
    """What `parse` makes of each item of `collections` that touches one of `areas` within `dates`.

    Args:
        catalog: address, or name of a profile.
        collections: ids of STAC collections.
        areas: geometries in degrees.
        dates: days of acquisition.
        kept_in: run folder where an API's answers are kept, so that it is asked once; None keeps nothing.
        parse: makes of an item what is needed of it: thousands of items as JSON would fill the memory.

    Returns:
        One value an item, in the order of collection and id.

    Raises:
        UsageError: a path leads nowhere.
        CatalogError: the catalog is not there, does not answer, or is not STAC.
    """
    catalog = address_of(catalog)
    if not urlsplit(catalog).scheme:
        catalog = str(Path(catalog).absolute())  # workers may stand elsewhere
        _check_local(catalog)
    wanted = _Wanted(collections=collections, areas=areas, dates=dates)
    shapely.prepare(list(areas))
    try:
        items = _items(catalog, wanted, kept_in)
        found = {(item["collection"], item["id"]): parse(item) for item in items if _matches(item, wanted)}
    except PretrainError:
        raise
    except Exception as error:
        if isinstance(error.__context__, PretrainError):  # pystac-client wraps what its transport raises
            raise error.__context__ from None
        raise CatalogError(
            f"catalog {redact(catalog)} cannot be searched: {_line(error)}. "
            "Give a STAC API, a catalog.json or an items.parquet that exists and is reachable."
        ) from error
    return [found[key] for key in sorted(found)]


def _check_local(catalog: str) -> None:
    file = catalog if catalog.endswith(".parquet") else _root(catalog)
    if not Path(file).exists():
        raise UsageError(f"{redact(file)} is not there. Check --catalog.")


def _root(catalog: str) -> str:
    """The document at the top of a static catalog."""
    return catalog if catalog.endswith(".json") else f"{catalog.rstrip('/')}/catalog.json"


def _items(catalog: str, wanted: _Wanted, kept_in: Store | None) -> Iterable[Item]:
    if urlsplit(catalog).path.endswith(".parquet"):
        return map(unsigned, _from_parquet(catalog, wanted))
    if urlsplit(catalog).scheme in {"http", "https"} and not urlsplit(catalog).path.endswith(".json"):
        today = datetime.now(UTC).date()
        questions = parts(wanted.collections, wanted.areas, wanted.dates, today=today)
        return stac_api.find(questions, SearchCache(store=kept_in, catalog=catalog), today=today)
    return map(unsigned, _from_static(catalog, wanted))


def _line(error: Exception) -> str:
    """What an error says, in one line: servers answer with pages."""
    return " ".join(redact(str(error)).split())[:300] or type(error).__name__


def _matches(item: Item, wanted: _Wanted) -> bool:
    """Whether to look at an item closer; one without date or place is kept, to be told as unusable."""
    span = interval(item["properties"])
    if item.get("collection") not in wanted.collections or (span and not wanted.dates.contains(*span)):
        return False
    corners = item.get("bbox")
    if not corners:
        return True
    half = len(corners) // 2  # a box may carry heights
    (west, south), (east, north) = corners[:2], corners[half : half + 2]
    spans = [(west, east)] if west <= east else [(west, 180), (-180, east)]  # RFC 7946: across the antimeridian
    return any(shapely.intersects(area, box(w, south, e, north)) for w, e in spans for area in wanted.areas)


def _from_static(catalog: str, wanted: _Wanted) -> Iterator[Item]:
    pending, seen = [_root(catalog)], set[str]()
    while pending:
        address = pending.pop()
        if address in seen:
            continue
        seen.add(address)
        document = _read_json(address)
        if document.get("type") == "Feature":
            yield absolute(document, address)
        elif document.get("type") != "Collection" or document.get("id") in wanted.collections:
            pending += [join(address, link["href"]) for link in document["links"] if link["rel"] in {"child", "item"}]


def _from_parquet(catalog: str, wanted: _Wanted) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    import rustac

    folder, _, name = catalog.rpartition("/")
    store = Store.at(folder or ".")
    west, south, east, north = shapely.total_bounds(wanted.areas)
    xmin, xmax = pc.field("bbox", "xmin"), pc.field("bbox", "xmax")
    here = ((xmin <= east) & (xmax >= west)) | ((xmin > xmax) & ((xmin <= east) | (xmax >= west)))
    here &= (pc.field("bbox", "ymin") <= north) & (pc.field("bbox", "ymax") >= south)
    with store.fs.open(store.path(name)) as file:
        table = pq.read_table(file, filters=here & pc.field("collection").isin(list(wanted.collections)))
    for first in range(0, table.num_rows, BATCH):
        rows = table.take(pa.array(range(first, min(first + BATCH, table.num_rows))))  # a copy: rustac takes no slices
        yield from (absolute(item, catalog) for item in rustac.from_arrow(rows)["features"])


def _read_json(address: str) -> dict[str, Any]:
    folder, _, name = address.rpartition("/")
    try:
        document: dict[str, Any] = json.loads(Store.at(folder or ".").read(name))
    except FileNotFoundError as error:
        raise CatalogError(f"{redact(address)} is not there. Check --catalog, or copy the catalog whole.") from error
    return document
