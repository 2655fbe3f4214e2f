"""Which failures of a read are worth another try, how long to wait before it, and when to leave a host alone.

GDAL repeats single requests by itself, but it knows no Retry-After and remembers cut bodies and failed opens. So a
whole read is repeated here, with nothing remembered, and each try is followed by one small question to the server: how
long to wait, and whether it is well and the file is what fails.
"""

import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Literal, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from ingest.catalogs import signing
from pipeline.errors import SourceError

T = TypeVar("T")
Kind = Literal["gone", "refused", "damaged", "failed"]
"""`gone` and `damaged` stay so, `refused` until somebody gives credentials; `failed` may pass by itself."""

TRIES = 4
"""Reads of one band before it fails for good; GDAL repeats each request on its own besides."""
PATIENCE_S = 60.0
"""Seconds that one pause lasts at most, whatever the server asks for."""
LIMIT = 3
"""Reads of a host that fail in a row before it is left alone."""
HOLD_S = 60.0
"""Seconds that a host is left alone; then one read asks once more."""
_ASK_S = 10
_GONE = re.compile(r"HTTP response code: (404|410)\b|No such file or directory")
_DAMAGED = re.compile(r"not recognized as|IReadBlock failed|TIFF|no EPSG code|Read failed")


class GaveUp(SourceError):
    """A read failed for good."""

    def __init__(self, why: str, *, permanent: bool) -> None:
        """Keep whether another run could help."""
        self.permanent = permanent
        super().__init__(why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server says when it is asked for the first bytes of a file."""

    well: bool
    """It sent them and no more, or it cannot be asked."""
    wait_s: float | None
    """Seconds after which it wants to be asked again (Retry-After)."""


class Hosts:
    """How the reads of each host went in this process: a dead one must not cost every unit all its tries."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._until_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def tries(self, host: str) -> int:
        """How often to try a read of `host`.

        Raises:
            GaveUp: it is left alone for now.
        """
        with self._lock:
            failures, left_s = self._failures.get(host, 0), self._until_s.get(host, 0.0) - time.monotonic()
        if failures < LIMIT:
            return TRIES
        if left_s > 0:
            raise GaveUp(f"{host} failed {failures} reads in a row and is left alone for a minute", permanent=False)
        return 1

    def tell(self, host: str, *, well: bool) -> None:
        """A read of `host` ended."""
        with self._lock:
            self._failures[host] = 0 if well else self._failures.get(host, 0) + 1
            self._until_s[host] = time.monotonic() + HOLD_S


HOSTS = Hosts()
"""Of this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What failing servers cost."""

    retries: int = 0
    """Reads that were made again."""
    seconds: float = 0.0
    """Waited before them, over all threads."""


class Holdup:
    """Counts what failing servers cost this process, until somebody takes the count. Safe to use from many threads."""

    def __init__(self) -> None:
        self._retries, self._seconds = 0, 0.0
        self._lock = threading.Lock()

    def pause(self, seconds: float) -> None:
        """Wait before a read is made again."""
        with self._lock:
            self._retries += 1
            self._seconds += seconds
        time.sleep(seconds)

    def take(self) -> Held:
        """Everything since the last time."""
        with self._lock:
            held = Held(retries=self._retries, seconds=self._seconds)
            self._retries, self._seconds = 0, 0.0
        return held


HOLDUP = Holdup()
"""Of this process."""


def patiently(read: Callable[[bool], T], href: str, *, errors: tuple[type[Exception], ...]) -> T:
    """`read(fresh)` of what is at `href`, again while that may help; `fresh` reads must remember nothing.

    Raises:
        GaveUp: one of `errors` each time, or once where another try cannot help.
    """
    host = _host(href)
    tries = HOSTS.tries(host) if host else 1
    lasting = True
    for attempt in range(tries):
        try:
            result = read(attempt > 0)
        except errors as error:
            why, kind = words(error), classify(words(error))
            if kind in {"gone", "refused"} or not host:
                HOSTS.tell(host, well=True)
                if not host and kind == "gone" and _is_unmounted(href):
                    raise GaveUp(f"{why}; nor is the folder above it: is its disk mounted?", permanent=False) from error
                raise GaveUp(why, permanent=kind in {"gone", "damaged"}) from error
            answer = ask(signing.sign(href))
            lasting = lasting and kind == "damaged" and answer.well
            if attempt < tries - 1:
                HOLDUP.pause(pause_s(attempt, answer.wait_s))
                continue
            HOSTS.tell(host, well=lasting)
            raise GaveUp(why, permanent=lasting and tries == TRIES) from error
        HOSTS.tell(host, well=True)
        return result
    raise AssertionError  # the last try returns or raises


def classify(why: str) -> Kind:
    """What a message of GDAL means. A damaged file and a damaged answer look the same: only a repetition tells."""
    if _GONE.search(why):
        return "gone"
    if why.startswith(signing.REFUSED):
        return "refused"
    return "damaged" if _DAMAGED.search(why) and "HTTP" not in why else "failed"


def words(error: BaseException) -> str:
    """What went wrong: rasterio's own message is often "see previous exception"."""
    return str(error.__cause__ or error)


def pause_s(attempt: int, asked_s: float | None) -> float:
    """Seconds before the next try: what the server asked for, or twice as long each time; spread over many workers."""
    wanted = 2.0**attempt if asked_s is None else asked_s
    return min(PATIENCE_S, wanted) * random.uniform(1, 1.25)  # noqa: S311  not cryptography


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date: one by the server's clock, not by this one's."""
    headers = {name.title(): value for name, value in headers.items()}
    text = headers.get("Retry-After") or ""
    if text.strip().isdigit():
        return float(text)
    then, now = _moment(text), _moment(headers.get("Date") or "")
    return max(0.0, (then - now).total_seconds()) if then and now else None


def ask(href: str) -> Answer:
    """Ask a web server for the first bytes of a file; other stores cannot be asked without credentials."""
    if not href.startswith(("http://", "https://")):
        return Answer(well=True, wait_s=None)
    request = Request(href, headers={"Range": "bytes=0-15"})  # noqa: S310  http or https
    try:
        with urlopen(request, timeout=_ASK_S) as answer:  # noqa: S310  http or https
            return Answer(well=answer.status == 206 and bool(answer.read(16)), wait_s=None)
    except HTTPError as error:
        return Answer(well=False, wait_s=retry_after_s(dict(error.headers)))
    except (OSError, HTTPException):
        return Answer(well=False, wait_s=None)


def _host(href: str) -> str:
    """Host and port, or bucket, of a file that is not on this machine; empty for one that is."""
    parts = urlsplit(href.removeprefix("/vsicurl/"))
    return parts.netloc.rpartition("@")[2] if parts.scheme not in {"", "file"} else ""


def _is_unmounted(href: str) -> bool:
    """Whether a local file lacks its folder, and there is nothing beside that: then more is gone than one scene."""
    folder = Path(href.removeprefix("file://")).parent
    return not folder.exists() and not (folder.parent.is_dir() and any(folder.parent.iterdir()))


def _moment(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None
