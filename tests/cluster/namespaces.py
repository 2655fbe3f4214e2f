"""Machines of one's own on this host: network namespaces with names and addresses, joined by a network that breaks.

    with joined(["a", "b"]) as network:
        network["a"].start(sys.executable, "train.py")
        network.cut("b")

The switch is a bridge in a namespace of its own, so nothing of this host's network is touched, and the addresses of two
test runs at once never meet. Machines share this host's files, processors and clock. Each has its own host name, and
an `/etc/hosts` with the names of all.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("iproute2", "nftables")
"""Of Debian; `.ci/install-packages` installs them."""
PROGRAMS = ("ip", "tc", "nft", "nsenter", "unshare")
_NET_ADMIN, _SYS_ADMIN = 12, 21
_NUMBERS = itertools.count()
_ENTER = 'mount --bind "$1" /etc/hosts && hostname "$0" && shift && exec "$@"'


def require() -> None:
    """Skip the test where machines cannot be made; fail it where it must be real."""
    reason = _obstacle()
    if reason and os.environ.get("REQUIRE_REAL") == "1":
        pytest.fail(f"{reason}; REQUIRE_REAL=1 asks for it")
    if reason:
        pytest.skip(reason)


def _obstacle() -> str:
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"{', '.join(absent)} not installed: run .ci/install-packages ({' '.join(PACKAGES)})"
    status = Path("/proc/self/status").read_text()
    able = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff"))
    missing = not able >> _NET_ADMIN & 1 or not able >> _SYS_ADMIN & 1
    return "network namespaces need the capabilities NET_ADMIN and SYS_ADMIN: run as root" if missing else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine."""

    name: str
    """Its host name."""
    address: str
    """IPv4, of its interface `eth0`."""
    namespace: str
    """As `ip netns` knows it; `/run/netns/NAMESPACE` is its file."""
    hosts: Path
    """What it sees as `/etc/hosts`."""
    started: list["subprocess.Popen[Any]"] = field(default_factory=list)
    """What `start` started."""

    def command(self, *arguments: str) -> list[str]:
        """What runs `arguments` on it, in the same process: to be signalled and waited for as if it ran here.

        Not by `ip netns exec`, which would mount another /sys, where Slurm does not find its control groups.
        """
        enter = ["nsenter", f"--net=/run/netns/{self.namespace}", "unshare", "--uts", "--mount"]
        return [*enter, "sh", "-c", _ENTER, self.name, str(self.hosts), *arguments]

    def start(self, *arguments: str, **how: Any) -> "subprocess.Popen[Any]":
        """Start a command on it, in a session of its own; `how` is Popen's."""
        process = subprocess.Popen(self.command(*arguments), **{"start_new_session": True, **how})
        self.started.append(process)
        return process

    def run(self, *arguments: str, timeout_s: float = 60, env: Mapping[str, str] | None = None) -> str:
        """Run a short command on it; what it printed."""
        return subprocess.check_output(self.command(*arguments), text=True, timeout=timeout_s, env=env)

    def processes(self) -> list[int]:
        """Ids of all that runs on it."""
        return [int(line) for line in _run("ip", "netns", "pids", self.namespace).split()]

    def kill(self) -> None:
        """Take its power away: SIGKILL for all that runs on it."""
        end_s = time.monotonic() + 30
        while (left := self.processes()) and time.monotonic() < end_s:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.02)
        assert not left, f"{self.name}: processes {left} outlive SIGKILL"
        for process in self.started:
            process.wait(timeout=30)

    def close(self) -> None:
        """Kill it for good, and leave nothing open."""
        self.kill()
        for process in self.started:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


class Network(Mapping[str, Machine]):
    """Machines by name, and the weather between them."""

    def __init__(self, machines: Sequence[Machine], *, switch: str) -> None:
        """`switch` is the namespace whose bridge joins them, each at a port that has its name."""
        self._machines, self._switch = {one.name: one for one in machines}, switch
        self._lost: dict[str, int] = {}

    def __getitem__(self, name: str) -> Machine:
        return self._machines[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._machines)

    def __len__(self) -> int:
        return len(self._machines)

    def cut(self, name: str) -> None:
        """From now on nothing reaches that machine and nothing leaves it; nobody is told."""
        self.lose(name, percent=100)

    def lose(self, name: str, *, percent: int) -> None:
        """Drop so many of its frames, at random, each way."""
        self._lost[name] = percent
        self._filter()

    def slow(self, name: str, *, mbit: float, wait_ms: int = 2000) -> None:
        """Send to and from it no faster; what would wait for longer in the queue is dropped.

        A queue that is full delays whatever comes behind it: this is the delay that a kernel without `netem` can make.
        """
        rate = ["tbf", "rate", f"{mbit}mbit", "burst", "4kb", "latency", f"{wait_ms}ms"]
        _run("tc", "-n", self._switch, "qdisc", "replace", "dev", name, "root", *rate)
        _run("tc", "-n", self[name].namespace, "qdisc", "replace", "dev", "eth0", "root", *rate)

    def restore(self, name: str) -> None:
        """End what `cut`, `lose` and `slow` did to it."""
        if self._lost.pop(name, 0):
            self._filter()
        for namespace, port in ((self._switch, name), (self[name].namespace, "eth0")):
            if "tbf" in _run("tc", "-n", namespace, "qdisc", "show", "dev", port):
                _run("tc", "-n", namespace, "qdisc", "del", "dev", port, "root")

    def _filter(self) -> None:
        rules = [
            f'{way} "{name}" numgen random mod 100 <= {percent - 1} drop'
            for name, percent in self._lost.items()
            for way in ("iifname", "oifname")
        ]
        table = "table bridge weather"
        hook = "type filter hook forward priority 0;"
        # Made before it is deleted: it is not there the first time.
        lines = [table, f"delete {table}", f"{table} {{", "chain frames {", hook, *rules, "}", "}", ""]
        _run("ip", "netns", "exec", self._switch, "nft", "-f", "-", told="\n".join(lines))


@contextlib.contextmanager
def joined(names: Sequence[str]) -> Iterator[Network]:
    """Machines of these names (up to 14 letters each) on one switch.

    At the end, also after a failure, whatever still runs on them is killed, and they are gone; those of a test that was
    killed itself are when the next one asks for machines.
    """
    _sweep()
    prefix = f"test-{os.getpid()}-{next(_NUMBERS)}"
    switch = f"{prefix}-switch"
    with tempfile.TemporaryDirectory(prefix="machines-") as folder, contextlib.ExitStack() as stack:
        hosts = Path(folder) / "hosts"
        machines = [
            Machine(name=name, address=f"10.77.0.{number}", namespace=f"{prefix}-{name}", hosts=hosts)
            for number, name in enumerate(names, start=1)
        ]
        hosts.write_text("".join(["127.0.0.1 localhost\n", *(f"{one.address} {one.name}\n" for one in machines)]))
        stack.enter_context(_namespace(switch))
        _run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "bridge", "up")
        for machine in machines:
            stack.enter_context(_namespace(machine.namespace))
            stack.callback(machine.close)
            _plug(machine, switch)
        yield Network(machines, switch=switch)


def _sweep() -> None:
    """End the machines of tests that were killed, and so could not."""
    for file in Path("/run/netns").glob("test-*-*"):
        if Path("/proc", file.name.split("-")[1]).exists():
            continue
        with contextlib.suppress(AssertionError):  # another test does it at the same time
            Machine(name=file.name, address="", namespace=file.name, hosts=file).kill()
            _run("ip", "netns", "del", file.name)


@contextlib.contextmanager
def _namespace(name: str) -> Iterator[None]:
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "-n", name, "link", "set", "lo", "up")
        yield
    finally:
        _run("ip", "netns", "del", name)


def _plug(machine: Machine, switch: str) -> None:
    there = ["peer", "name", "eth0", "netns", machine.namespace]
    _run("ip", "link", "add", "name", machine.name, "netns", switch, "type", "veth", *there)
    _run("ip", "-n", switch, "link", "set", "dev", machine.name, "master", "bridge", "up")
    _run("ip", "-n", machine.namespace, "addr", "add", f"{machine.address}/24", "dev", "eth0")
    _run("ip", "-n", machine.namespace, "link", "set", "eth0", "up")


def _run(*command: str, told: str | None = None) -> str:
    """A tool's output; its complaint is in the failure."""
    done = subprocess.run(command, input=told, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
