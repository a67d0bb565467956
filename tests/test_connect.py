"""Our own Ray: every socket of its processes is on loopback."""

from __future__ import annotations

import ipaddress
import socket

import psutil
import pytest

from toolrec import connect
from toolrec.errors import ConfigError


def test_nothing_listens_beyond_loopback(local_ray: None, serve_url: str):
    listening = [
        (process.name(), connection.laddr.ip)
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 5
    beyond = [entry for entry in listening if not _is_loopback(entry[1])]
    assert not beyond


def test_a_free_port_is_none_that_the_system_hands_out():
    with socket.socket() as unnamed, socket.socket() as named:
        unnamed.bind(("127.0.0.1", 0))
        named.bind(("127.0.0.1", connect.free_port()))
        assert named.getsockname()[1] < connect.handed_out_from() <= unnamed.getsockname()[1]


def test_no_free_port_is_said(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", connect.free_port()))
        other.listen()
        monkeypatch.setattr("random.SystemRandom.sample", lambda *_: [other.getsockname()[1]] * 2)
        with pytest.raises(ConfigError, match="no free port on the loopback address"):
            connect.free_port()


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback
