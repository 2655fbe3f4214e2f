"""A real STAC API of one's own: stac-fastapi on pgstac, in a PostgreSQL with PostGIS of its own, on loopback ports.

The server's pins conflict with the project's, so it lives in an environment of its own: `make stac`.
"""

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stores.ceph import end, free_ports

PACKAGES = ("postgresql-15", "postgresql-15-postgis-3")
"""Of Debian; `.ci/install-packages` installs them."""
BIN = Path(__file__).parents[2] / ".venv-stac" / "bin"
"""Of `make stac`."""
SETTINGS = ("listen_addresses=127.0.0.1", "fsync=off", "shared_buffers=64MB", "max_connections=40")


def missing() -> str | None:
    """What is not installed, and how to install it."""
    if not (BIN / "pypgstac").exists():
        return f"{BIN} is missing: run `make stac`"
    if postgres() is None:
        return f"PostgreSQL with PostGIS is not installed: run .ci/install-packages ({' '.join(PACKAGES)})"
    return None


def postgres() -> Path | None:
    """Where the newest PostgreSQL that has PostGIS keeps its programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    with_postgis = [path.parent for path in found if (path.parents[1] / "lib" / "postgis-3.so").exists()]
    return with_postgis[-1] if with_postgis else None


@contextlib.contextmanager
def running(collections: list[dict[str, Any]], items: list[dict[str, Any]]) -> Iterator[str]:
    """The address of an API of `items`."""
    programs = postgres()
    assert programs is not None
    database, http = free_ports(2)
    folder = Path(tempfile.mkdtemp(prefix="pgstac-"))  # the database's own user must reach it: not a folder of pytest's
    env = _environment(database)
    servers: list[subprocess.Popen[bytes]] = []
    try:
        servers.append(_start_database(programs, folder, database))
        _run(programs / "createdb", "-h", "127.0.0.1", "-p", str(database), "-U", "postgres", "postgis", env=env)
        _run(BIN / "pypgstac", "migrate", env=env)
        for table, rows in (("collections", collections), ("items", items)):
            (folder / f"{table}.ndjson").write_text("\n".join(map(json.dumps, rows)))
            _run(BIN / "pypgstac", "load", table, str(folder / f"{table}.ndjson"), "--method", "upsert", env=env)
        command = ["--factory", "stac_fastapi.pgstac.app:create_app", "--host", "127.0.0.1", "--port", str(http)]
        servers.append(_serve([str(BIN / "uvicorn"), *command], folder / "api.log", env=env))
        _wait_for(f"http://127.0.0.1:{http}/_mgmt/ping", servers, folder)
        yield f"http://127.0.0.1:{http}"
    finally:
        for server in reversed(servers):
            end(server)
        shutil.rmtree(folder, ignore_errors=True)


def _environment(port: int) -> dict[str, str]:
    pg = {"HOST": "127.0.0.1", "PORT": str(port), "USER": "postgres", "PASSWORD": "none", "DATABASE": "postgis"}
    return {**os.environ, **{f"PG{name}": value for name, value in pg.items()}}


def _start_database(programs: Path, folder: Path, port: int) -> subprocess.Popen[bytes]:
    """PostgreSQL refuses to run as root: then it runs as the user that its package made."""
    command: list[str] = []
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
    env = {**os.environ, "HOME": str(folder)}
    initdb = (str(programs / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "--auth=trust", "--no-sync")
    _run(*command, *initdb, env=env)
    settings = [word for one in (*SETTINGS, f"unix_socket_directories={folder}") for word in ("-c", one)]
    serve = [*command, str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port), *settings]
    server = _serve(serve, folder / "postgres.log", env=env)
    for _ in range(300):
        ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        if subprocess.run(ready, check=False, timeout=30).returncode == 0:
            return server
        time.sleep(0.1)
    end(server)
    raise AssertionError((folder / "postgres.log").read_text()[-2000:])


def _run(*command: str | Path, env: dict[str, str]) -> None:
    """Run a command to its end; its output is in the failure."""
    done = subprocess.run(
        list(map(str, command)), env=env, capture_output=True, text=True, timeout=120, check=False, cwd="/"
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def _serve(command: list[str], log: Path, *, env: dict[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            command, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd="/"
        )


def _wait_for(url: str, servers: list[subprocess.Popen[bytes]], folder: Path) -> None:
    end_s = time.monotonic() + 60
    while True:
        logs = {path.name: path.read_text()[-2000:] for path in folder.glob("*.log")}
        assert all(server.poll() is None for server in servers), logs
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        assert time.monotonic() < end_s, logs
        time.sleep(0.1)
