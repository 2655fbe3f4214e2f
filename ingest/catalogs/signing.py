"""What an asset's address needs before it can be opened: a token, an endpoint, a payer, or nothing.

All of it follows from the address alone, so that plan files and workers carry neither tokens nor profiles. A token is
fetched once a container and process, again when five minutes are left or when it is refused, and it lives in memory
only: whatever is raised from here has lost its query.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

from ingest.catalogs.hrefs import BLOBS, is_signed
from ingest.catalogs.profiles import profile_of
from ingest.catalogs.transport import TIMEOUT_S, server_time, session
from pipeline.errors import CatalogError, SourceError, redact

T = TypeVar("T")

TOKENS_URL = "https://planetarycomputer.microsoft.com/api/sas/v1/token"
"""Where tokens come from, unless PC_SDK_SAS_URL names another place."""
EARLY_S = 300.0
"""Seconds before its end at which a token is replaced; of one that lives shorter than twice that, half its life."""
REFUSED = "refused (403), also with a new token. Set PC_SDK_SUBSCRIPTION_KEY, or ask the host for access"
"""What is said of an asset that a new token does not open."""
_PAID = {"AWS_REQUEST_PAYER": "requester", "AWS_REGION": "eu-central-1"}
_BUCKETS = {
    "eodata": {"AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu", "AWS_VIRTUAL_HOSTING": "FALSE"},
    "sentinel-s1-l1c": _PAID,
    "sentinel-s2-l1c": _PAID,
    "sentinel-s2-l2a": _PAID,
}
"""GDAL's options for buckets that need some; what the environment sets itself wins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A shared access signature of one container."""

    query: str = field(repr=False)
    """To be put behind a question mark; empty where the container needs none."""
    renew_s: float
    """When to replace it, on a clock that never goes back."""


@dataclass(slots=True, kw_only=True, eq=False)
class Signer:
    """The tokens of one process. Safe to use from many threads: one asks, the others wait."""

    now: Callable[[], float] = time.monotonic
    """Seconds of a clock that never goes back."""
    _tokens: dict[str, Token] = field(init=False, default_factory=dict, repr=False)
    _locks: dict[str, Lock] = field(init=False, default_factory=dict, repr=False)
    _lock: Lock = field(init=False, default_factory=Lock, repr=False)

    def sign(self, href: str, *, refused: str = "") -> str:
        """The address to open for `href`; another one than `refused`, where that was not good any more.

        Raises:
            SourceError: the token server does not give one.
        """
        container = _container(href)
        if not container or is_signed(href):
            return href
        with self._lock:
            lock = self._locks.setdefault(container, Lock())
        with lock:
            token = self._tokens.get(container)
            if token is None or self.now() >= token.renew_s or (token.query and _with(href, token) == refused):
                token = self._tokens[container] = _fetch(container, self.now)
        return _with(href, token)


_signer = Signer()


def sign(href: str, *, refused: str = "") -> str:
    """As `Signer.sign`, with the tokens of this process."""
    return _signer.sign(href, refused=refused)


def reading(href: str, read: Callable[[str], T]) -> T:
    """What `read` makes of the address to open for `href`; with a new token, once, where the first is refused.

    Raises:
        OSError: as `read` raised it; for signed addresses without the signature.
    """
    address = sign(href)
    if address == href:
        return read(href)
    refused = False
    for again in (False, True):
        address = sign(href, refused=address) if again else address
        try:
            return read(address)
        except OSError as error:
            why = redact(str(error))
        refused = is_refused(address)
        if not refused:
            break
    # Raised here, and not where it was caught: the first error's own causes repeat the signature.
    raise OSError(REFUSED if refused else why)


def options(href: str) -> dict[str, str]:
    """GDAL's options for `href`. Credentials for `s3://` come from the environment that GDAL reads."""
    parts = urlsplit(href)
    needed = _BUCKETS.get(parts.netloc, {}) if parts.scheme == "s3" else {}
    return {name: value for name, value in needed.items() if name not in os.environ}


def is_refused(address: str) -> bool:
    """Whether a host says that an address may not be read: what a raster library says of that is not reliable."""
    try:
        with session(profile_of(TOKENS_URL)) as http:
            return http.head(address, timeout=TIMEOUT_S, allow_redirects=True).status_code in {401, 403}
    except (OSError, CatalogError):
        return False


def _container(href: str) -> str:
    """`account/container` of an Azure blob; empty for anything else."""
    parts = urlsplit(href)
    host, container = parts.hostname or "", parts.path.strip("/").partition("/")[0]
    return f"{host.removesuffix(BLOBS)}/{container}" if host.endswith(BLOBS) and container else ""


def _with(href: str, token: Token) -> str:
    if not token.query:
        return href
    return f"{href}{'&' if urlsplit(href).query else '?'}{token.query}"


def _fetch(container: str, now: Callable[[], float]) -> Token:
    """A new token. How long it lives is read by the server's clock and counted by ours, which may be wrong."""
    base = os.environ.get("PC_SDK_SAS_URL", TOKENS_URL).rstrip("/")
    key = os.environ.get("PC_SDK_SUBSCRIPTION_KEY")
    asked_s = now()
    with session(profile_of(TOKENS_URL)) as http:
        headers = {"Ocp-Apim-Subscription-Key": key} if key else {}
        answer = http.get(f"{base}/{container}", headers=headers, timeout=TIMEOUT_S)
    if answer.status_code == 404:  # not one of theirs: public, or nobody's
        return Token(query="", renew_s=float("inf"))
    if not answer.ok:
        raise SourceError(
            f"{redact(base)}/{container} gives no token: HTTP {answer.status_code}. Check PC_SDK_SUBSCRIPTION_KEY."
        )
    document = answer.json()
    query = str(document["token"]).lstrip("?")
    ends = datetime.fromisoformat(str(document.get("msft:expiry") or parse_qs(query)["se"][0]))
    ends = ends.replace(tzinfo=UTC) if ends.tzinfo is None else ends
    life_s = max(0.0, (ends - server_time(answer)).total_seconds())
    return Token(query=query, renew_s=asked_s + life_s - min(EARLY_S, life_s / 2))
