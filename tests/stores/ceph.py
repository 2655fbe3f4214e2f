"""A real object store of one's own: Ceph's monitor, one OSD in memory, and the S3 gateway, on free loopback ports.

    python tests/stores/ceph.py     # prints how to reach it, and runs until it is interrupted

Three traps of Ceph 16 are kept out of the way here: without cephx the gateway waits five minutes for the monitor, pools
of one copy must be allowed in so many words, and an OSD does not end once its monitor is gone, so the order of the end
is gateway, OSD, monitor.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("ceph-common", "ceph-mon", "ceph-osd", "radosgw")
"""Of Debian; `.ci/install-packages` installs them."""
PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_DEFAULT_REGION": "us-east-1"}
CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_v2}/0,v1:127.0.0.1:{mon_v1}/0]
mon initial members = a
keyring = {folder}/keyring
public network = 127.0.0.0/8
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
mon data avail warn = 2
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 4294967296
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
mon data = {folder}/mon
osd data = {folder}/osd
[client.rgw]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{http}
rgw thread pool size = 16
"""
CAPABILITIES = {
    "mon.": ("mon", "allow *"),
    "client.admin": ("mon", "allow *", "osd", "allow *"),
    "client.rgw": ("mon", "allow rwx", "osd", "allow rwx"),
    "osd.0": ("mon", "allow profile osd", "osd", "allow *"),
}
"""What each key may do: service and permission, in turn."""


def missing() -> list[str]:
    """Programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a client of an empty store, which keeps its files in `folder` and is gone afterwards."""
    ports = dict(zip(("mon_v1", "mon_v2", "http"), free_ports(3), strict=True))
    configure(folder, ports)
    servers: list[subprocess.Popen[bytes]] = []
    try:
        servers.append(serve(folder, "ceph-mon", "-i", "a"))
        add_osd(folder)
        servers.append(serve(folder, "ceph-osd", "-i", "0"))
        servers.append(serve(folder, "radosgw", "-n", "client.rgw"))
        wait_for(ports["http"], servers, folder)
        add_user(folder)
        yield {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['http']}", **KEYS}
    finally:
        for server in reversed(servers):
            end(server)


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens at."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def configure(folder: Path, ports: dict[str, int]) -> None:
    """Everything that the monitor must find before it starts."""
    fsid, keyring = str(uuid.uuid4()), str(folder / "keyring")
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    (folder / "ceph.conf").write_text(CONFIGURATION.format(fsid=fsid, folder=folder, **ports))
    run(folder, "ceph-authtool", "--create-keyring", keyring)
    for name, allowed in CAPABILITIES.items():
        caps = [word for pair in zip(allowed[::2], allowed[1::2], strict=True) for word in ("--cap", *pair)]
        run(folder, "ceph-authtool", keyring, "--gen-key", "-n", name, *caps)
    where = f"[v2:127.0.0.1:{ports['mon_v2']},v1:127.0.0.1:{ports['mon_v1']}]"
    run(folder, "monmaptool", "--create", "--fsid", fsid, "--addv", "a", where, str(folder / "monmap"))
    run(folder, "ceph-mon", "--mkfs", "-i", "a", "--monmap", str(folder / "monmap"), "--keyring", keyring)


def add_osd(folder: Path) -> None:
    """Tell the monitor of the OSD, and make its files."""
    osd = str(uuid.uuid4())
    run(folder, "ceph", "osd", "new", osd)
    run(folder, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    run(folder, "ceph", "osd", "crush", "add", "osd.0", "1", "root=default", "host=h0")


def add_user(folder: Path) -> None:
    """The owner of `KEYS`."""
    keys = ["--access-key", KEYS["AWS_ACCESS_KEY_ID"], "--secret", KEYS["AWS_SECRET_ACCESS_KEY"]]
    run(folder, "radosgw-admin", "user", "create", "--uid", "tester", "--display-name", "tester", *keys)


def run(folder: Path, *command: str) -> None:
    """Run a command of Ceph to its end; its output is in the failure."""
    done = subprocess.run(
        command, env=environment(folder), capture_output=True, text=True, timeout=60, check=False, cwd=folder
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def serve(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    """Start a server that stays in the foreground; what it says is in its log."""
    with (folder / f"{command[0]}.err").open("wb") as errors:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": errors}
        return subprocess.Popen([*command, "-f"], env=environment(folder), start_new_session=True, cwd=folder, **quiet)


def environment(folder: Path) -> dict[str, str]:
    """Of every command of Ceph."""
    return {**os.environ, "CEPH_CONF": str(folder / "ceph.conf")}


def wait_for(port: int, servers: list[subprocess.Popen[bytes]], folder: Path) -> None:
    """Until the gateway accepts connections; it listens once its pools are there."""
    end_s = time.monotonic() + 120
    while True:
        ended = [server.args for server in servers if server.poll() is not None]
        assert not ended, f"{ended}: {[path.read_text()[-2000:] for path in folder.glob('*.err')]}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < end_s, f"the gateway did not start; its log is in {folder}"
            time.sleep(0.1)
        else:
            return


def end(server: subprocess.Popen[bytes]) -> None:
    """Ask a server to end, and end it."""
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        server.terminate()
        server.wait(timeout=5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait(timeout=30)


def main() -> None:
    """Run until interrupted."""
    if missing():
        sys.exit(f"error: {missing()} are not installed. Run .ci/install-packages.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with tempfile.TemporaryDirectory(prefix="ceph-") as folder, running(Path(folder)) as client:
        print(" ".join(f"{name}={value}" for name, value in client.items()), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
