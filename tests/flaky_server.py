"""An HTTP server of a folder that serves ranges, and fails as often as it is told."""

import contextlib
import http.server
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

Fault = Callable[[str, int], str | None]
"""(path, number of the request) → `503`, `reset` (after half of the body), `short` (half, then the end), or None."""


@contextlib.contextmanager
def serving(folder: Path, fault: Fault = lambda path, number: None) -> Iterator[tuple[str, list[str]]]:
    """Its URL, and the paths that were asked for, in order."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            asked.append(self.path)
            path, what = folder / self.path.lstrip("/"), fault(self.path, len(asked))
            if not path.is_file() or what == "503":
                self.send_error(404 if not path.is_file() else 503)
                return
            data = path.read_bytes()
            span = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            part = data[int(span[1]) : int(span[2]) + 1] if span else data
            self.send_response(206 if span else 200)
            self.send_header("Content-Length", str(len(part)))
            if span:
                self.send_header("Content-Range", f"bytes {span[1]}-{int(span[1]) + len(part) - 1}/{len(data)}")
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if body and what == "reset":
                self.wfile.write(part[: len(part) // 2])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            elif body:
                self.wfile.write(part)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
