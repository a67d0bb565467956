"""The only place that starts Ray or joins a running one."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import os
import random
import re
import socket
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from toolrec.errors import ConfigError, RunStoppedError
from toolrec.util.files import under_job
from toolrec.util.settings import Settings, setting

log = logging.getLogger(__name__)

HANDED_OUT_FROM = 32_768
"""Where nothing else is known, systems give connections and unnamed listeners ports from here on, or from higher ones."""

TOKEN_HINT = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) as the head node has them"

CONNECT_TIMEOUT_S = 10.0
"""How long an answer from a given address is waited for."""

BUSY_MACHINE = {
    "RAY_agent_register_timeout_ms": "300000",  # Ray's default: 30 s, after which the node ends itself
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",  # Ray's default: 60 s, after which the head node ends itself
    "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "300",  # Ray's default: 30 s, for each of the dashboard's processes
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # Serve's default: 5 s, after which it kills the proxy that is starting
}
"""How long a Ray of our own waits for its own processes: on a busy machine each takes several seconds to start."""


class RaySettings(Settings):
    """Which Ray a command runs on; it changes no result."""

    address: str | None = setting(
        None, "Address of a running Ray, HOST:PORT or auto; default: start one on this machine.", flag="--address"
    )
    num_cpus: int | None = setting(None, "CPUs of the Ray that the run starts; null for all.", flag="--num-cpus", ge=1, le=65_536)
    metrics_port: int | None = setting(
        None, "Port where our own Ray answers Prometheus; null for any free one.", flag="--metrics-port", ge=1, le=65_535
    )


@contextlib.contextmanager
def connected(address: str | None = None, *, num_cpus: int | None = None, metrics_port: int | None = None) -> Iterator[bool]:
    """Ray for as long as the block runs: a running one that is given or that submitted this job, else one of our own.

    A Ray that was started here ends with the block; a running one is only left.

    Args:
        address: a running Ray's address, `auto`, or None.
        num_cpus: CPUs of our own Ray; None for all of the machine's.
        metrics_port: where our own Ray answers Prometheus; None for any free port.

    Yields:
        Whether it is one of our own, which nobody else uses.

    Raises:
        ConfigError: there is no Ray at the address, or the port for Prometheus is taken or a running Ray's own affair.
    """
    import ray  # here, so that the settings cost nothing to import
    from ray.exceptions import AuthenticationError

    if address not in (None, "auto"):
        _check_reachable(str(address))
    is_own = starts_own(address) and not ray.is_initialized()
    if metrics_port is not None:
        _check_metrics_port(metrics_port, is_own=is_own)
    if ray.is_initialized():
        yield False
        return
    if address is not None and _is_on_loopback_only(address):
        _keep_to_loopback()
    try:
        if is_own:
            start_local(num_cpus, metrics_port=metrics_port)
        else:
            ray.init(address=address or "auto", log_to_driver=log.isEnabledFor(logging.INFO), logging_level=logging.WARNING)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(
            "no running Ray at this address" if address in (None, "auto") else "Ray lets nobody in at this address",
            value=address or os.environ.get("RAY_ADDRESS", "auto"),
            hint=f"leave --address out to start one here, or {TOKEN_HINT}",
        ) from error
    except (RuntimeError, AuthenticationError) as error:
        raise _refused(error, address) from error
    try:
        yield is_own
    finally:
        ray.shutdown()


def _refused(error: Exception, address: str | None) -> Exception:
    """An error of Ray's own on the way in, where it is one of settings: another version, no token or a wrong one."""
    from ray.exceptions import AuthenticationError

    text = str(error)
    where = address or os.environ.get("RAY_ADDRESS", "auto")
    if "Version mismatch" in text:
        [theirs, ours] = [dict(re.findall(r"(Ray|Python): (\S+)", part)) for part in text.split("This process on")]
        cluster, here = (f"Ray {found.get('Ray')} and Python {found.get('Python')}" for found in (theirs, ours))
        return ConfigError(
            f"the cluster at {where} has {cluster}, this process {here}",
            hint="install the same versions here, or submit the command as a job, which runs with the cluster's",
        )
    if isinstance(error, AuthenticationError) or "authentication" in text.lower() or "unauthenticated" in text.lower():
        return ConfigError("the cluster asks for a token, and this process has none or a wrong one", value=where, hint=TOKEN_HINT)
    return error


def starts_own(address: str | None) -> bool:
    """Whether a process that is given this address starts a Ray of its own, where it has none yet."""
    return address is None and not under_job() and not os.environ.get("RAY_ADDRESS")


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes before it says that nothing answers."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ConfigError("not the address of a Ray head node", value=address, allowed="HOST:PORT (6379 by default), or auto")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no running Ray at this address ({error})", value=address) from error


def _is_on_loopback_only(address: str) -> bool:
    """Whether the Ray at a loopback address cannot be reached at this machine's own address, into which Ray would turn it."""
    from ray.util import get_node_ip_address

    host, _, port = address.rpartition(":")
    if host not in ("127.0.0.1", "localhost"):
        return False
    try:
        socket.create_connection((get_node_ip_address(), int(port)), timeout=1.0).close()
    except OSError:
        return True
    return False


def _keep_to_loopback() -> None:
    """Lets 127.0.0.1 be 127.0.0.1: Ray turns it into the machine's own address unless no other node is to join.

    The variable tells the processes that it starts; this process may have read it already.
    """
    from ray._private import ray_constants

    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def _check_metrics_port(port: int, *, is_own: bool) -> None:
    """Ray itself would only say after a while that it did not start."""
    if not is_own:
        raise ConfigError(
            "a running Ray has a port of its own for Prometheus",
            value=port,
            hint="it was given to `ray start --metrics-export-port`",
        )
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise ConfigError(f"this port cannot answer Prometheus ({error})", value=port) from error


def handed_out_from() -> int:
    """The lowest port that this system gives to those who name none."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return HANDED_OUT_FROM


def free_port() -> int:
    """A port of this node's loopback address that is free, and that the system gives to nobody who names none.

    A process that takes it some seconds later, or again after a restart, still finds it free: Ray's own workers listen on
    ports that the system hands out, a dozen a run.

    Raises:
        ConfigError: no such port could be found.
    """
    first = handed_out_from()
    ports = range(max(1024, first - 12_000), first) or range(HANDED_OUT_FROM, 60_000)  # where all are handed out, any
    error: OSError | None = None
    for port in random.SystemRandom().sample(ports, min(100, len(ports))):
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError as taken:
            error = taken
        else:
            return port
    raise ConfigError(f"no free port on the loopback address ({error})")


def free_ports(count: int, *, besides: Collection[int] = ()) -> list[int]:
    """Different ports, each as `free_port` gives one, and none of `besides`."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.update({free_port()}.difference(besides))
    return list(ports)


START_S = 240.0
"""How long a node of Ray may take to come up; Ray itself allows 30 s and has no setting for it."""

_TOO_BUSY = "The current node timed out during startup"
"""How Ray says that its own node did not come up in time; the exception has no class of its own."""


def start_local(num_cpus: int | None = None, *, object_store_bytes: int = 512 * 1024**2, metrics_port: int | None = None) -> None:
    """Starts a Ray of our own on the loopback address, without dashboard or usage reports, that takes calls with its token only.

    Replicas of Ray Serve listen on all addresses (Ray has no setting for it) and unpickle what they are sent. They refuse
    calls without the token, whatever `RAY_AUTH_MODE` was set to.

    Args:
        num_cpus: CPUs; None for all that this process may use.
        object_store_bytes: size of the object store; what travels is a pool and short records.
        metrics_port: where it answers Prometheus; None for any free port.

    Raises:
        ConfigError: the path of Ray's session folder is too long.
        RunStoppedError: the machine was too busy to start Ray within `START_S`.
    """
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Where no mode is set, a local Ray makes a token, takes it into use and hands it to the processes that it starts.
    os.environ.pop("RAY_AUTH_MODE", None)
    _keep_to_loopback()
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    try:
        with patient_start():
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                object_store_memory=object_store_bytes,
                logging_level=logging.WARNING,
                log_to_driver=log.isEnabledFor(logging.INFO),
                _metrics_export_port=metrics_port,
            )
    except OSError as error:
        if "AF_UNIX path length" not in str(error):
            raise
        raise ConfigError(
            "the folder of Ray's session has too long a path for the sockets in it",
            value=os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(),
            allowed="about 40 characters",
            hint="set RAY_TMPDIR to a shorter one, such as /tmp",
        ) from error


@contextlib.contextmanager
def patient_start() -> Iterator[None]:
    """Inside the block a node of Ray may take `START_S` to come up, where Ray allows 30 s and has no setting for it.

    Ray's question whether the node is there waits for the answer. The node's agents are told their ports, and the files in which
    they would name them are there from the start: a raylet waits 30 s for each and then aborts. The waits of `BUSY_MACHINE`
    go into the environment, which the node's processes inherit.

    Raises:
        RunStoppedError: it did not come up.
    """
    from ray._private import ray_constants, services

    for name, wait in BUSY_MACHINE.items():
        os.environ.setdefault(name, wait)
    dashboard_s = ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S  # this process has read its environment already
    ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S = max(dashboard_s, int(os.environ["RAY_DASHBOARD_STARTUP_TIMEOUT_S"]))
    get_node, start_raylet = services.get_node, services.start_raylet
    raylets: list[Any] = []

    def exit_code() -> int | None:
        code: int | None = raylets[-1].process.poll() if raylets else None
        return code

    def start_with_ports(*given: Any, **named: Any) -> Any:
        call = inspect.signature(start_raylet).bind(*given, **named)
        _name_ports(call.arguments)
        raylets.append(start_raylet(*call.args, **call.kwargs))
        return raylets[-1]

    def wait_for_node(*given: Any, **named: Any) -> Any:
        deadline_s = time.monotonic() + START_S
        while True:
            try:
                return get_node(*given, **named)
            except RuntimeError:
                if exit_code() is not None or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)

    services.start_raylet = start_with_ports
    services.get_node = wait_for_node
    try:
        yield
    except Exception as error:
        if _TOO_BUSY not in str(error):
            raise
        if (code := exit_code()) is not None:
            hint = "see raylet.out and raylet.err in the logs of Ray's session, below RAY_TMPDIR or /tmp"
            raise RunStoppedError("Ray's node ended while it started", value=f"exit code {code}", hint=hint) from error
        load = f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} CPUs"
        hint = "run again when it is less busy, with --resume where the command has it"
        said = f"Ray did not start within {START_S:.0f} s: this machine is too busy"
        raise RunStoppedError(said, value=load, hint=hint) from error
    finally:
        services.get_node, services.start_raylet = get_node, start_raylet
        ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S = dashboard_s


def _name_ports(arguments: dict[str, Any]) -> None:
    """Gives the agents of a node that is about to start their ports, and writes the files in which the node looks for them."""
    from ray._private import ray_constants

    raylet: Any = importlib.import_module("ray._raylet")  # compiled, and without types
    files = {
        "metrics_agent_port": raylet.METRICS_AGENT_PORT_NAME,
        "metrics_export_port": raylet.METRICS_EXPORT_PORT_NAME,
        "dashboard_agent_listen_port": raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME,
        "runtime_env_agent_port": raylet.RUNTIME_ENV_AGENT_PORT_NAME,
    }
    # Ray's default is the same for all nodes of a machine: the second one would have no agent that starts jobs.
    unnamed = (None, 0, ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT)
    needed = [name for name in files if arguments.get(name) in unnamed]
    given = [arguments[name] for name in files if name not in needed]
    arguments.update(zip(needed, free_ports(len(needed), besides=given), strict=True))
    for name, file in files.items():
        raylet.persist_port(arguments["session_dir"], arguments["node_id"], file, arguments[name])
