"""The guard around the tests holds."""

import socket

import pytest


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("example.org", 443)])
def test_no_test_reaches_beyond_loopback(address: tuple[str, int]) -> None:
    with socket.socket() as outward, pytest.raises(RuntimeError, match="tried to reach"):
        outward.connect(address)


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()
