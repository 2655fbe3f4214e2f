"""A STAC API, a token server and a blob store in one loopback server, which fail as they are told.

Blobs are asked for through it as a proxy (`http_proxy`), so that their addresses keep the host that tokens are for.
GDAL holds Python's lock while it reads a file's directory: only COGs, whose head comes with the open, can be served
from a thread of the process that reads them.
"""

import contextlib
import http.server
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Fault = Callable[["Asked"], str | None]
"""→ None, a status (`503`), a status and seconds to wait (`429:2`), `reset` (no answer), `short` (half of the body,
then the end), `cut` (half of the body, well told), `expired` (403, and no token given so far is good any more)."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request."""

    kind: str  # landing, search, token, blob
    number: int  # of its kind, from 1
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(kw_only=True)
class Server:
    """What the server holds; a test changes it as it likes."""

    items: list[dict[str, Any]] = field(default_factory=list)
    blobs: Path = Path()
    fault: Fault = lambda asked: None
    paging: str = "plain"  # overlap: each page repeats the one before; forever: the last page leads to the first
    skew_s: float = 0.0  # how far its clock is ahead
    life_s: float = 3600.0  # of a token
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    issued: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, kind: str) -> list[Asked]:
        return [one for one in self.asked if one.kind == kind]

    def note(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Asked:
        parts = urlsplit(path)
        kinds = {"": "landing", "search": "search", "collections": "collections"}
        kind = "blob" if parts.netloc else "token" if "/token/" in path else kinds.get(parts.path.strip("/"), "object")
        with self.lock:
            number = len(self.of(kind)) + 1
            query = parse_qs(parts.query)
            self.asked.append(Asked(kind=kind, number=number, path=parts.path, query=query, headers=headers, body=body))
            return self.asked[-1]

    def token(self) -> dict[str, Any]:
        with self.lock:
            self.issued += 1
            ends = datetime.fromtimestamp(time.time() + self.skew_s + self.life_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            name = f"secret-{self.url.rpartition(':')[2]}-{self.issued}"  # GDAL remembers addresses between tests
            self.tokens.add(name)
        return {"msft:expiry": ends, "token": f"se={ends.replace(':', '%3A')}&sig={name}"}

    def landing(self) -> dict[str, Any]:
        links = [
            {"rel": "self", "href": self.url},
            {"rel": "root", "href": self.url},
            {"rel": "search", "href": f"{self.url}/search", "method": "POST", "type": "application/geo+json"},
        ]
        conforms = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
        about = {"type": "Catalog", "id": "flaky", "description": "fails", "stac_version": "1.0.0"}
        return about | {"conformsTo": conforms, "links": links}

    def page(self, body: dict[str, Any]) -> dict[str, Any]:
        found = [item for item in self.items if _matches(item, body)]
        limit, start = body["limit"], int(body.get("token", 0))
        first = max(0, start - limit) if self.paging == "overlap" else start % max(1, len(found))
        links = []
        if start + limit < len(found) or self.paging == "forever":
            next_body = {**body, "token": str(start + limit)}
            links = [{"rel": "next", "href": f"{self.url}/search", "method": "POST", "body": next_body}]
        return {
            "type": "FeatureCollection",
            "features": found[first : start % max(1, len(found)) + limit],
            "links": links,
        }


def _matches(item: dict[str, Any], body: dict[str, Any]) -> bool:
    west, south, east, north = body["bbox"]
    w, s, e, n = item["bbox"]
    here = w <= east and e >= west and s <= north and n >= south
    start, _, end = body.get("datetime", "../..").partition("/")
    moment = item["properties"]["datetime"]
    during = (start == ".." or moment >= start) and (end == ".." or moment <= end)
    return item["collection"] in body["collections"] and here and during


def _handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:  # noqa: C901  a class of small methods
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each answer waits 40 ms for the client's acknowledgement of its head

        def do_GET(self) -> None:
            self._do({})

        def do_HEAD(self) -> None:
            self._do({})

        def do_POST(self) -> None:
            self._do(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def log_message(self, *_: object) -> None:
            pass

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string((timestamp or time.time()) + server.skew_s)

        def _do(self, body: dict[str, Any]) -> None:
            asked = server.note(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            what = server.fault(asked)
            if what == "reset":
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            elif what == "expired":
                server.tokens.clear()
                self._send(403)
            elif asked.kind == "blob" and not self._signed(asked):
                self._send(403)
            elif what and what[:3].isdecimal():
                status, _, wait = what.partition(":")
                self._send(int(status), b"<html>no</html>", headers={"Retry-After": wait} if wait else {})
            elif asked.kind == "blob":
                self._blob(asked)
            else:
                made = {"landing": server.landing, "token": server.token, "search": lambda: server.page(body)}
                self._send(200, json.dumps(made[asked.kind]()).encode(), fault=what)

        def _signed(self, asked: Asked) -> bool:
            return set(asked.query.get("sig", ())) <= server.tokens and "sig" in asked.query

        def _blob(self, asked: Asked) -> None:
            path = server.blobs / asked.path.strip("/").partition("/")[2]
            if not path.is_file():
                self._send(404)
                return
            data = path.read_bytes()
            span = re.match(r"bytes=(\d+)-(\d+)", asked.headers.get("range", ""))
            if not span:
                self._send(200, data, headers={"Accept-Ranges": "bytes"})
                return
            part = data[int(span[1]) : int(span[2]) + 1]
            where = {"Content-Range": f"bytes {span[1]}-{int(span[1]) + len(part) - 1}/{len(data)}"}
            self._send(206, part, headers=where)

        def _send(
            self, status: int, data: bytes = b"", *, headers: dict[str, str] | None = None, fault: str | None = None
        ) -> None:
            sent = data[: len(data) // 2] if fault in {"short", "cut"} else data
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data if fault == "short" else sent)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else sent)
            self.close_connection = fault == "short"

    return Handler


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    """`server` on a free port, until the end of the block."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(server)) as http_server:
        http_server.daemon_threads = True
        threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        server.url = f"http://127.0.0.1:{http_server.server_address[1]}"
        try:
            yield server
        finally:
            http_server.shutdown()
