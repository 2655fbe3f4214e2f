"""Questions to a STAC API → items as JSON, each question answered once and for all.

Through pystac-client, whose pages are taken as they come: nothing is made an object of. Pages and items may come twice,
and an API that pages on for ever is left.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from typing import Any

from ingest.catalogs.partition import Part, cut
from ingest.catalogs.profiles import Profile, profile_of
from ingest.catalogs.search_cache import Answer, SearchCache
from ingest.catalogs.transport import TIMEOUT_S, mount
from ingest.scenes.scene import Item

THREADS = 4
"""Questions on their way at once; how many a second is the profile's to say."""

STALE_PAGES = 5
"""Pages in a row without anything new, after which an API is believed to go round in circles."""


def find(questions: Sequence[Part], cache: SearchCache, *, today: date) -> Iterator[Item]:
    """All items of the answers; what is in the cache is not asked for.

    Open dates are tried as one question first. Where that takes more than a page, its months are asked for instead.

    Raises:
        CatalogError: the API keeps failing, or hands out signed pixels.
        APIError: pystac-client's, for answers that are none.
    """
    client, pending, first = None, list(questions), True
    while pending:
        known = [(part, cache.load(part)) for part in pending]
        answers = [answer for _, answer in known if answer]
        missing = [part for part, answer in known if not answer]
        if missing:
            client = client or connect(cache.catalog, profile_of(cache.catalog))
        ask_one = partial(_answer, client, cache, today=today, may_cut=first)
        pending, first = [], False
        with ThreadPoolExecutor(THREADS) as pool:
            for answer in (*answers, *pool.map(ask_one, missing)):
                yield from answer.items
                pending += answer.cut


def _answer(client: Any, cache: SearchCache, part: Part, *, today: date, may_cut: bool) -> Answer:
    items = ask(client, part, page=profile_of(cache.catalog).page, whole=may_cut and part.is_open)
    answer = Answer(items=(), cut=cut(part, today)) if items is None else Answer(items=items)
    return cache.keep(part, answer)


def connect(address: str, profile: Profile) -> Any:
    """A pystac-client of the API at `address` that keeps to the profile's rate."""
    from pystac_client import Client
    from pystac_client.stac_api_io import StacApiIO

    stac_io = StacApiIO(timeout=TIMEOUT_S, max_retries=None)
    mount(stac_io.session, profile)
    return Client.open(address, stac_io=stac_io)


def ask(client: Any, part: Part, *, page: int, whole: bool) -> list[Item] | None:
    """Each item once; None where they take more than a page and `whole` asks for one that has all."""
    found: dict[str, Item] = {}
    for document in _pages(client, part, page):
        found |= {item["id"]: item for item in document["features"]}
        if whole and _has_next(document):
            return None
    return list(found.values())


def _pages(client: Any, part: Part, page: int) -> Iterator[dict[str, Any]]:
    """Pages until there is no next one, or nothing new comes."""
    query = client.search(collections=[part.collection], bbox=part.box, datetime=part.stac_datetime(), limit=page)
    seen: set[str] = set()
    stale = 0
    for document in query.pages_as_dicts():
        yield document
        ids = {item["id"] for item in document["features"]}
        stale = 0 if ids - seen else stale + 1
        seen |= ids
        if stale == STALE_PAGES:
            return


def _has_next(document: dict[str, Any]) -> bool:
    return any(link.get("rel") == "next" for link in document.get("links") or ())
