"""A real web server of one's own that fails on purpose: nginx on a free loopback port, its files in one folder.

/ok/ as it should be · /slow/ 2 MB/s · /busy/ 503 with Retry-After for 3 of 10 requests · /drop/ the connection ends
without an answer for 3 of 10 · /limited/ 429 above 50 requests a second · /whole/ no ranges
"""

import contextlib
import grp
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "nginx-light"
"""Of Debian; `.ci/install-packages` installs it."""
CONFIGURATION = """
{user}
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/errors.log warn;
events {{ worker_connections 256; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/tmp;
  proxy_temp_path {folder}/tmp;
  fastcgi_temp_path {folder}/tmp;
  uwsgi_temp_path {folder}/tmp;
  scgi_temp_path {folder}/tmp;
  limit_req_zone $binary_remote_addr zone=polite:1m rate=50r/s;
  split_clients "busy$request_id" $busy {{ 30% 1; * ""; }}
  split_clients "drop$request_id" $drop {{ 30% 1; * ""; }}
  server {{
    listen 127.0.0.1:{port};
    location /ok/ {{ alias {served}/; }}
    location /slow/ {{ alias {served}/; limit_rate 2m; }}
    location /busy/ {{ if ($busy) {{ add_header Retry-After 1 always; return 503; }} alias {served}/; }}
    location /drop/ {{ if ($drop) {{ return 444; }} alias {served}/; }}
    location /limited/ {{ limit_req zone=polite burst=5 nodelay; limit_req_status 429; alias {served}/; }}
    location /whole/ {{ max_ranges 0; alias {served}/; }}
  }}
}}
"""


def missing() -> list[str]:
    """Programs that are not installed."""
    return [] if shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") else ["nginx"]


@contextlib.contextmanager
def running(folder: Path, served: Path) -> Iterator[str]:
    """The URL of a server of the files below `served`, which keeps its own in `folder` and is gone afterwards."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, served=served, port=port, user=_user()))
    command = [str(program), "-c", str(configuration), "-e", str(folder / "errors.log")]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        _wait_for(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()  # the master ends its worker
        server.communicate(timeout=30)


def _user() -> str:
    """Workers as the user of the tests, whose folders pytest makes private again whenever another run of it starts."""
    if os.geteuid() != 0:
        return ""  # nginx cannot change its user, and does not
    return f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(0).gr_name};"


def _wait_for(port: int, server: subprocess.Popen[str]) -> None:
    end_s = time.monotonic() + 30
    while True:
        assert server.poll() is None, server.communicate()[1]
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < end_s, "nginx did not start"
            time.sleep(0.05)
        else:
            return
