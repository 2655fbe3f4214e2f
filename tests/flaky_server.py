"""An HTTP server of a folder that serves ranges, and fails as often as it is told."""

import contextlib
import http.server
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Fault = Callable[[str, int], str | None]
"""(path, number of the request) → what goes wrong, or None.

A status, with seconds of Retry-After where they follow: `503`, `429 2`; `drop` before any answer; `reset` after half of
the body; `html`, a page in place of the file, with status 200; `slow`, half a second late.
"""


@contextlib.contextmanager
def serving(
    folder: Path, fault: Fault = lambda path, number: None, *, at: tuple[str, int] = ("127.0.0.1", 0)
) -> Iterator[tuple[str, list[str]]]:
    """Its URL, and the paths that were asked for, in order."""
    asked: list[str] = []
    facts = {"folder": folder, "fault": staticmethod(fault), "asked": asked}
    with _Server(at, type("Handler", (_Handler,), facts)) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"http://{at[0]}:{server.server_address[1]}", asked
        finally:
            server.shutdown()


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Clients that hang up are no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    fault: Fault
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        self.asked.append(self.path)
        path = self.folder / self.path.partition("?")[0].lstrip("/")
        what = self.fault(self.path, len(self.asked)) or ""
        status, _, wait_s = what.partition(" ")
        if not path.is_file() or status.isdigit():
            self._refuse(int(status) if status.isdigit() else 404, wait_s)
        elif what == "drop":
            self._hang_up()
        else:
            time.sleep(0.5 if what == "slow" else 0)
            part = self._begin(b"<html>be patient</html>" * 4096 if what == "html" else path.read_bytes())
            if body:
                self.wfile.write(part[: len(part) // 2] if what == "reset" else part)
            if body and what == "reset":
                self._hang_up()

    def _begin(self, data: bytes) -> bytes:
        """Send the headers; the part of `data` that was asked for."""
        span = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        part = data[int(span[1]) : int(span[2]) + 1] if span else data
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(len(part)))
        if span:
            self.send_header("Content-Range", f"bytes {span[1]}-{int(span[1]) + len(part) - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        return part

    def _refuse(self, status: int, wait_s: str) -> None:
        self.send_response(status)
        if wait_s:
            self.send_header("Retry-After", wait_s)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True
