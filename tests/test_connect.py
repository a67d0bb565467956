"""Our own Ray: its sockets are on loopback, and those that Ray Serve opens to all refuse whoever has no token."""

from __future__ import annotations

import inspect
import ipaddress
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from ray.serve.generated.serve_pb2 import ASGIRequest
from ray.serve.generated.serve_pb2_grpc import ASGIServiceStub
from support import ROOT

from toolrec import connect
from toolrec.errors import ConfigError, RunStoppedError


@pytest.fixture(scope="module")
def replica_port(serve_url: str, demo_folder: Path, demo_recommenders: Path) -> Iterator[int]:
    """Deployed tools, and the port where a replica of theirs takes other replicas' calls."""
    from ray import serve

    from toolrec.serving.app import AppConfig, build_app

    before = {port for _, address, port in _listening() if not _is_loopback(address)}
    config = AppConfig(dataset=str(demo_folder), recommenders=str(demo_recommenders))
    serve.run(build_app(config), name="sockets", route_prefix=None)
    opened = sorted({port for _, address, port in _listening() if not _is_loopback(address)} - before)
    assert opened
    yield opened[0]
    serve.delete("sockets")


def test_nothing_listens_beyond_loopback_but_replicas(replica_port: int):
    listening = _listening()
    assert len(listening) > 5
    beyond = {name for name, address, _ in listening if not _is_loopback(address)}
    assert all(name.startswith("ray::ServeReplica") for name in beyond), beyond


def test_replicas_refuse_what_comes_without_the_token(replica_port: int, tmp_path: Path):
    """As an attacker would: a pickle that makes a folder where it is unpickled."""
    trace = tmp_path / "unpickled"
    for metadata in ((), (("authorization", "Bearer " + "0" * 64),)):
        for _, _, port in _beyond():
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                call = ASGIServiceStub(channel).HandleRequest
                with pytest.raises(grpc.RpcError) as caught:
                    call(ASGIRequest(pickled_request_metadata=pickle.dumps(_Mkdir(str(trace)))), metadata=metadata, timeout=20)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert not trace.exists()


class _Mkdir:
    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self._path,)


def _listening() -> list[tuple[str, str, int]]:
    """Name, address and port of every listening socket of the processes that this one has started."""
    return [
        (" ".join(process.cmdline())[:80], connection.laddr.ip, connection.laddr.port)
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]


def _beyond() -> list[tuple[str, str, int]]:
    return [entry for entry in _listening() if not _is_loopback(entry[1])]


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


def test_a_session_folder_whose_path_is_too_long_for_sockets(tmp_path: Path):
    script = "from toolrec.connect import start_local; start_local(1)"
    environment = {**os.environ, "RAY_TMPDIR": str(tmp_path / ("long" * 20))}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=500, cwd=ROOT)
    assert "ConfigError: the folder of Ray's session has too long a path" in done.stderr and "set RAY_TMPDIR" in done.stderr


def test_a_machine_that_is_too_busy_to_start_ray_is_said(monkeypatch: pytest.MonkeyPatch):
    def never_up(**settings: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because some of the raylet failed")

    monkeypatch.setattr("ray.init", never_up)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # start_local takes it out, and here it comes back
    with pytest.raises(RunStoppedError, match=r"Ray did not start within 240 s: this machine is too busy; got: load \d+ on"):
        connect.start_local(2)


def test_a_node_that_comes_up_late_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    from ray._private import ray_constants, services

    answers = iter([RuntimeError("not there yet"), RuntimeError("not there yet"), {"node_id": "n"}])

    def get_node(address: str, node: str) -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(services, "get_node", get_node)
    monkeypatch.setattr(ray_constants, "RAY_DASHBOARD_STARTUP_TIMEOUT_S", 60)
    with connect.patient_start():
        assert services.get_node("a", "n") == {"node_id": "n"}
        assert ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S == 300
    assert services.get_node is get_node and ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S == 60


def test_a_node_need_not_wait_for_the_ports_of_its_agents(tmp_path: Path):
    import ray._raylet as raylet
    from ray._private import ray_constants, services

    node = "ab" * 28
    arguments = {"node_id": node, "session_dir": str(tmp_path), "metrics_export_port": 0, "metrics_agent_port": None}
    arguments["dashboard_agent_listen_port"] = ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
    connect._name_ports(arguments)
    ports = {name: port for name, port in arguments.items() if name.endswith("_port")}
    assert len(ports) == len(set(ports.values())) == 4
    assert all(port < connect.handed_out_from() for port in ports.values())
    assert raylet.wait_for_persisted_port(str(tmp_path), node, raylet.METRICS_AGENT_PORT_NAME) == ports["metrics_agent_port"]
    assert len(list(tmp_path.iterdir())) == 4
    given = {**arguments, "metrics_export_port": 9_100}
    connect._name_ports(given)
    assert given == {**arguments, "metrics_export_port": 9_100}, "what is named stays"
    assert {"session_dir", "node_id", *ports} <= set(inspect.signature(services.start_raylet).parameters)
