"""An HTTP server of ranges in a process of its own: counts requests and bytes, waits, and fails when it is told to.

    python server.py FOLDER          # prints its port

`/-/set?delay=0.03&fault=503&rate=0.05` begins anew, `/-/counts` tells. Faults: 503 and 429 (both with Retry-After),
403, and `cut` (half of the body, then the end). Which requests fail depends on their number alone. `/stac` is a STAC
API of the items in the folder, which answers at once and is not counted.
"""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

GOLDEN = 0x9E3779B1
"""Multiples of it, modulo 2^32, spread evenly: the n-th request fails where that of n is small."""
REASONS = {200: "OK", 206: "Partial Content", 403: "Forbidden", 404: "Not Found", 429: "Slow", 503: "Busy"}


class Server:
    """What one server knows."""

    def __init__(self, folder: Path):
        self.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.tif")}
        self.items = {path.relative_to(folder): json.loads(path.read_text()) for path in folder.glob("*/*/*.json")}
        self.begin({})

    def begin(self, query: dict[str, list[str]]) -> None:
        """Count from 0, with other delays and faults."""
        self.delay_s, self.rate = float(query.get("delay", ["0"])[0]), float(query.get("rate", ["0"])[0])
        self.fault = query.get("fault", [""])[0]
        self.requests = self.bytes = self.failed = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1"):
                size = re.search(r"\r\nContent-Length: *(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(size[1])) if size else b""
                if not await self.answer(head, body, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, head: str, body: bytes, writer: asyncio.StreamWriter) -> bool:
        """One request; False where the connection ends with it."""
        method, target, _ = head.split(" ", 2)
        url = urlsplit(target)
        if url.path.startswith("/-/"):
            if url.path == "/-/set":
                self.begin(parse_qs(url.query))
            told = {"requests": self.requests, "bytes": self.bytes, "failed": self.failed}
            return await send(writer, 200, json.dumps(told).encode())
        if url.path.startswith("/stac"):
            return await send(writer, 200, json.dumps(self.stac(url.path, head, body)).encode())
        self.requests += 1
        fault = self.fault if self.requests * GOLDEN % 2**32 < self.rate * 2**32 else ""
        self.failed += bool(fault)
        await asyncio.sleep(self.delay_s)
        if fault.isdecimal():
            return await send(writer, int(fault), b"no", {"Retry-After": "1"})
        data = self.files.get(url.path.lstrip("/"))
        if data is None:
            return await send(writer, 404, b"")
        status, headers, part = ranged(data, head)
        if method == "HEAD":
            return await send(writer, status, b"", {**headers, "Content-Length": str(len(part))})
        self.bytes += len(part)
        return await send(writer, status, part, headers, cut=fault == "cut")

    def stac(self, path: str, head: str, body: bytes) -> dict[str, Any]:
        """The landing page, or all items of the collections that are asked for, on one page."""
        host = re.search(r"\r\nHost: *(\S+)", head, re.IGNORECASE)
        assert host
        url = f"http://{host[1]}"
        if path.rstrip("/") == "/stac":
            post = {"rel": "search", "href": f"{url}/stac/search", "method": "POST", "type": "application/geo+json"}
            links = [{"rel": rel, "href": f"{url}/stac"} for rel in ("self", "root")]
            conforms = [f"https://api.stacspec.org/v1.0.0/{name}" for name in ("core", "item-search")]
            about = {"type": "Catalog", "id": "local", "description": "local", "stac_version": "1.0.0"}
            return {**about, "conformsTo": conforms, "links": [*links, post]}
        wanted = json.loads(body)["collections"]
        found = [placed(item, f"{url}/{where.parent.as_posix()}") for where, item in self.items.items()]
        return {
            "type": "FeatureCollection",
            "features": [one for one in found if one["collection"] in wanted],
            "links": [],
        }


def placed(item: dict[str, Any], folder: str) -> dict[str, Any]:
    """An item whose assets lie in a folder."""
    assets = {
        key: {**asset, "href": f"{folder}/{asset['href']}".replace("/./", "/")} for key, asset in item["assets"].items()
    }
    return {**item, "links": [], "assets": assets}


def ranged(data: bytes, head: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a file, or of the range that was asked for."""
    span = re.search(r"\r\nRange: *bytes=(\d+)-(\d*)", head, re.IGNORECASE)
    headers = {"Accept-Ranges": "bytes", "Content-Type": "image/tiff"}
    if not span:
        return 200, headers, data
    first, last = int(span[1]), min(int(span[2] or len(data)), len(data) - 1)
    return 206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}, data[first : last + 1]


async def send(
    writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str] | None = None, *, cut: bool = False
) -> bool:
    """Write an answer, or half of it."""
    lines = {"Content-Length": str(len(body)), **(headers or {})}
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(head.encode() + b"\r\n")
    writer.write(body[: len(body) // 2] if cut else body)
    await writer.drain()
    return not cut


async def main(folder: str) -> None:
    """Serve until the process ends."""
    server = await asyncio.start_server(Server(Path(folder)).serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
