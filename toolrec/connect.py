"""The only place that starts Ray or joins a running one."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import ray
from ray._private import ray_constants

from toolrec.errors import ConfigError
from toolrec.files import under_job

log = logging.getLogger(__name__)

HANDED_OUT_FROM = 32_768
"""Where nothing else is known, systems give connections and unnamed listeners ports from here on, or from higher ones."""

CONNECT_TIMEOUT_S = 10.0
"""How long an answer from a given address is waited for."""


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
    if address not in (None, "auto"):
        _check_reachable(str(address))
    is_own = address is None and not under_job() and not os.environ.get("RAY_ADDRESS") and not ray.is_initialized()
    if metrics_port is not None:
        _check_metrics_port(metrics_port, is_own=is_own)
    if ray.is_initialized():
        yield False
        return
    try:
        if is_own:
            start_local(num_cpus, metrics_port=metrics_port)
        else:
            ray.init(address=address or "auto", log_to_driver=log.isEnabledFor(logging.INFO), logging_level=logging.WARNING)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(
            "no running Ray at this address",
            value=address or os.environ.get("RAY_ADDRESS", "auto"),
            hint="leave --address out to start one here, or set RAY_AUTH_MODE and RAY_AUTH_TOKEN as the head node has them",
        ) from error
    try:
        yield is_own
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes before it says that nothing answers."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ConfigError("not the address of a Ray head node", value=address, allowed="HOST:PORT (6379 by default), or auto")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no running Ray at this address ({error})", value=address) from error


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


def start_local(num_cpus: int | None = None, *, object_store_bytes: int = 512 * 1024**2, metrics_port: int | None = None) -> None:
    """Starts a Ray of our own whose every socket is on the loopback address, without dashboard or usage reports.

    Args:
        num_cpus: CPUs; None for all that this process may use.
        object_store_bytes: size of the object store; what travels is a pool and short records.
        metrics_port: where it answers Prometheus; None for any free port.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray turns 127.0.0.1 into the machine's own address unless it knows that no other node will join. The variable
    # tells the processes that it starts; this process may have read it already.
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        object_store_memory=object_store_bytes,
        logging_level=logging.WARNING,
        log_to_driver=log.isEnabledFor(logging.INFO),
        _metrics_export_port=metrics_port,
    )
