"""Our own Ray: every socket of its processes is on loopback."""

from __future__ import annotations

import ipaddress

import psutil


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


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback
