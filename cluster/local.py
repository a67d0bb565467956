"""A real Ray of several nodes on this machine, on loopback, for tests and trials: `python -m cluster.local --workers 2`.

Each node has a raylet, an object store and workers of its own, as on a machine of its own; only the network between them is
missing. It prints the address for `toolrec evaluate --address …` and then takes commands, a line each:

    add [CPUS]      one more worker node
    kill NUMBER     ends a worker node's processes at once, as a crash does
    remove NUMBER   takes a worker node away, as a scale-down does
    stop            ends all (so do the end of the input and Ctrl-C)
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from toolrec.connect import patient_start

LOOPBACK = "127.0.0.1"
OBJECT_STORE_BYTES = 100 * 1024**2


class LocalCluster:
    """A head node and worker nodes that come and go.

    Args:
        head_cpus: CPUs of the head node; KubeRay's usual setting is 0.
    """

    def __init__(self, *, head_cpus: int = 0) -> None:
        head = {"num_cpus": head_cpus, "include_dashboard": False}
        with patient_start():
            self._cluster = Cluster(initialize_head=True, head_node_args={**_ON_LOOPBACK, **head})
        self._workers: dict[int, Any] = {}

    @property
    def address(self) -> str:
        """What `--address` takes."""
        return str(self._cluster.address)

    def add(self, num_cpus: int) -> int:
        """Starts a worker node; gives its number."""
        number = len(self._workers) + 1
        with patient_start():
            self._workers[number] = self._cluster.add_node(**_ON_LOOPBACK, num_cpus=num_cpus)
        return number

    def remove(self, number: int, *, at_once: bool = False) -> None:
        """Ends a worker node, with notice or at once."""
        self._cluster.remove_node(self._workers[number], allow_graceful=not at_once)

    def stop(self) -> None:
        """Ends all nodes."""
        self._cluster.shutdown()


_ON_LOOPBACK = {"node_ip_address": LOOPBACK, "object_store_memory": OBJECT_STORE_BYTES}


@contextlib.contextmanager
def local_cluster(*, head_cpus: int = 0, workers: int = 0, cpus: int = 1) -> Iterator[LocalCluster]:
    """A local cluster for as long as the block runs."""
    # Short, because the path of a socket has at most 107 bytes; and apart, so that `--address auto` of others does not find it.
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    (folder / "ray").mkdir()
    os.environ["RAY_TMPDIR"] = str(folder)
    cluster = LocalCluster(head_cpus=head_cpus)
    try:
        for _ in range(workers):
            cluster.add(cpus)
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Runs a local cluster until its input ends."""
    parser = argparse.ArgumentParser(prog="python -m cluster.local", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--head-cpus", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cpus", type=int, default=1, help="CPUs of a worker node")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with (
        contextlib.suppress(KeyboardInterrupt),
        local_cluster(head_cpus=given.head_cpus, workers=given.workers, cpus=given.cpus) as cluster,
    ):
        _say(f"address {cluster.address}")
        for line in sys.stdin:
            words = line.split()
            if words == ["stop"]:
                break
            try:
                _say(obey(cluster, words, given.cpus))
            except (KeyError, ValueError):
                _say("commands: add [CPUS], kill NUMBER, remove NUMBER, stop")


def obey(cluster: LocalCluster, words: list[str], cpus: int) -> str:
    """Carries out one command; gives what is said of it."""
    verb, *arguments = words or [""]
    if verb == "add":
        return f"added {cluster.add(int(arguments[0]) if arguments else cpus)}"
    if verb not in ("kill", "remove"):
        raise ValueError(verb)
    number = int(arguments[0]) if arguments else 0
    cluster.remove(number, at_once=verb == "kill")
    return f"{'killed' if verb == 'kill' else 'removed'} {number}"


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
