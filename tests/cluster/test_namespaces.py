"""The machines that other tests run on: they see each other by name, are cut off and come back, and leave nothing."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster import namespaces
from cluster.namespaces import Machine, Network, joined


@pytest.fixture(autouse=True)
def possible() -> None:
    namespaces.require()


def _answers(network: Network, *, sent: int = 1) -> int:
    """How many of so many pings from `a` are answered by `b`, which it calls by its name."""
    command = network["a"].command("python3", "-c", PING, "b", str(sent))
    return int(subprocess.check_output(command, text=True, timeout=60))


PING = """
import socket, sys
name, sent = sys.argv[1], int(sys.argv[2])
here, got = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), set()
here.settimeout(0.5)
for number in range(sent):
    here.sendto(b"%d" % number, (name, 9))
try:
    while len(got) < sent:
        got.add(here.recv(99))
except OSError:
    pass
print(len(got))
"""
ECHO = """
import socket
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(("0.0.0.0", 9))
while True:
    here.sendto(*here.recvfrom(99))
"""


def _echo(machine: Machine) -> "subprocess.Popen[bytes]":
    process = machine.start("python3", "-c", ECHO)
    end_s = time.monotonic() + 20
    while ":0009 " not in machine.run("cat", "/proc/net/udp"):
        assert time.monotonic() < end_s
        time.sleep(0.02)
    return process


def test_machines_are_joined_cut_and_gone() -> None:
    with joined(["a", "b"]) as network:
        assert network["a"].run("hostname").strip() == "a"
        echo = _echo(network["b"])
        assert _answers(network) == 1
        network.cut("b")
        assert _answers(network) == 0
        network.restore("b")
        assert _answers(network) == 1
        network.lose("b", percent=30)  # each way, so that half of the answers come
        assert 20 < _answers(network, sent=80) < 60
        network.restore("b")
        network.slow("b", mbit=0.1)
        assert _answers(network, sent=20) == 20
        assert "tbf" in network["b"].run("tc", "qdisc")
        network.restore("b")
        assert "tbf" not in network["b"].run("tc", "qdisc")
        network["b"].kill()
        assert echo.wait(timeout=10) == -signal.SIGKILL


def test_nothing_is_left_after_a_failure() -> None:
    with pytest.raises(ZeroDivisionError), joined(["a"]) as network:  # noqa: PT012  it is started before the failure
        sleeper = network["a"].start("sleep", "1000")
        _ = 1 / 0
    assert sleeper.wait(timeout=10) == -signal.SIGKILL
    assert f"test-{os.getpid()}-" not in subprocess.check_output(["ip", "netns"], text=True)


KILLED = """
from cluster.namespaces import joined
with joined(["a"]) as network:
    print(network["a"].namespace, network["a"].start("sleep", "600").pid, flush=True)
    input()
"""


def test_the_machines_of_a_killed_test_are_gone_once_others_are_made() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", KILLED], env=environment, **pipes) as test:
        namespace, process = test.stdout.readline().split()
        test.kill()
    with joined(["b"]):  # or another test beside this one, which sweeps as well
        assert not Path("/run/netns", namespace).exists()
        end_s = time.monotonic() + 20
        with contextlib.suppress(FileNotFoundError):
            while Path(f"/proc/{process}/cmdline").read_bytes():  # empty as soon as it is dead
                assert time.monotonic() < end_s, "what ran on it still does"
                time.sleep(0.02)


def test_what_a_killed_test_left_is_removed() -> None:
    subprocess.run(["ip", "netns", "add", "test-4194305-0-a"], check=True)  # more than the kernel's largest
    with joined(["a"]):
        assert "4194305" not in subprocess.check_output(["ip", "netns"], text=True)
