"""Where scenes are found: a STAC API, a static catalog, or a stac-geoparquet file. One question, one answer.

In: the address, the collections, the areas, the dates. Out: items as JSON with absolute hrefs, each once, in a fixed
order. The API goes through pystac-client; the other two need no server: they are read and filtered here.
"""

import json
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import shapely
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from ingest.aoi import DateRange
from ingest.profiles import address_of
from ingest.scene import Item, interval
from pipeline.errors import CatalogError, PretrainError, redact
from pipeline.store import Store

PAGE = 200
"""Items a page. Larger ones make public APIs answer 502."""
TIMEOUT_S = 60
"""Seconds for one request to an API."""


def search(catalog: str, collections: Sequence[str], *, areas: Sequence[BaseGeometry], dates: DateRange) -> list[Item]:
    """Items of `collections` that touch one of `areas` (degrees) within `dates`, sorted by collection and id.

    Raises:
        CatalogError: the catalog is not there, does not answer, or is not STAC.
    """
    catalog = address_of(catalog)
    catalog = catalog if urlsplit(catalog).scheme else str(Path(catalog).absolute())  # workers may stand elsewhere
    try:
        items = _source(catalog)(catalog, collections, areas, dates)
        found = {(item["collection"], item["id"]): item for item in items if _matches(item, collections, areas, dates)}
    except PretrainError:
        raise
    except Exception as error:
        raise CatalogError(
            f"catalog {redact(catalog)} cannot be searched: {redact(str(error)) or type(error).__name__}. "
            "Give a STAC API, a catalog.json or an items.parquet that exists and is reachable."
        ) from error
    return [found[key] for key in sorted(found)]


def _source(catalog: str) -> Any:
    if urlsplit(catalog).path.endswith(".parquet"):
        return _from_parquet
    if urlsplit(catalog).scheme in {"http", "https"} and not urlsplit(catalog).path.endswith(".json"):
        return _from_api
    return _from_static


def _matches(item: Item, collections: Sequence[str], areas: Sequence[BaseGeometry], dates: DateRange) -> bool:
    """Whether to look at an item closer; one without date or place is kept, to be told as unusable."""
    span = interval(item["properties"])
    if item.get("collection") not in collections or (span and not dates.contains(*span)):
        return False
    corners = item.get("bbox")
    if not corners:
        return True
    half = len(corners) // 2  # a box may carry heights
    (west, south), (east, north) = corners[:2], corners[half : half + 2]
    spans = [(west, east)] if west <= east else [(west, 180), (-180, east)]  # RFC 7946: across the antimeridian
    return any(shapely.intersects(box(w, south, e, north), area) for w, e in spans for area in areas)


def _from_api(
    catalog: str, collections: Sequence[str], areas: Sequence[BaseGeometry], dates: DateRange
) -> Iterator[Item]:
    from pystac_client import Client
    from pystac_client.stac_api_io import StacApiIO

    client = Client.open(catalog, stac_io=StacApiIO(timeout=TIMEOUT_S, max_retries=5))
    for area in areas:
        query = client.search(collections=list(collections), bbox=area.bounds, datetime=dates.stac(), limit=PAGE)
        yield from query.items_as_dicts()


def _from_static(catalog: str, collections: Sequence[str], *_ignored: object) -> Iterator[Item]:
    root = catalog if catalog.endswith(".json") else f"{catalog.rstrip('/')}/catalog.json"
    pending, seen = [root], set[str]()
    while pending:
        address = pending.pop()
        if address in seen:
            continue
        seen.add(address)
        document = _read_json(address)
        if document.get("type") == "Feature":
            yield _absolute(document, address)
        elif document.get("type") != "Collection" or document.get("id") in collections:
            pending += [_join(address, link["href"]) for link in document["links"] if link["rel"] in {"child", "item"}]


def _from_parquet(
    catalog: str, collections: Sequence[str], areas: Sequence[BaseGeometry], *_ignored: object
) -> Iterable[Item]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    import rustac

    folder, _, name = catalog.rpartition("/")
    store = Store.at(folder or ".")
    west, south, east, north = shapely.total_bounds(areas)
    xmin, xmax = pc.field("bbox", "xmin"), pc.field("bbox", "xmax")
    here = ((xmin <= east) & (xmax >= west)) | ((xmin > xmax) & ((xmin <= east) | (xmax >= west)))
    here &= (pc.field("bbox", "ymin") <= north) & (pc.field("bbox", "ymax") >= south)
    with store.fs.open(store.path(name)) as file:
        table = pq.read_table(file, filters=here & pc.field("collection").isin(list(collections)))
    if not table.num_rows:
        return []
    return [_absolute(item, catalog) for item in rustac.from_arrow(table)["features"]]


def _read_json(address: str) -> dict[str, Any]:
    folder, _, name = address.rpartition("/")
    try:
        document: dict[str, Any] = json.loads(Store.at(folder or ".").read(name))
    except FileNotFoundError as error:
        raise CatalogError(f"{redact(address)} is not there. Check --catalog, or copy the catalog whole.") from error
    return document


def _join(base: str, href: str) -> str:
    """`href` seen from the file at `base`."""
    if urlsplit(href).scheme or href.startswith("/"):
        return href
    if urlsplit(base).scheme in {"http", "https"}:
        return urljoin(base, href)
    scheme, mark, path = base.rpartition("://")
    return scheme + mark + posixpath.normpath(posixpath.join(posixpath.dirname(path), href))


def _absolute(item: dict[str, Any], address: str) -> Item:
    properties = {key: value for key, value in item["properties"].items() if value is not None}
    assets = {key: {**asset, "href": _join(address, asset["href"])} for key, asset in item["assets"].items() if asset}
    return {**item, "properties": properties, "assets": assets}
