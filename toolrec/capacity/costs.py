"""What one user costs, as measured on one machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from toolrec.errors import ConfigError
from toolrec.util.files import read_json, write_json

SIMULATION, TOOLS, MEMORY, GOVERNOR, DRIVER, REST = (
    "simulation actors",
    "tool replicas",
    "shared memory",
    "governor",
    "driver",
    "Ray and Serve",
)
KINDS = (SIMULATION, TOOLS, MEMORY, GOVERNOR, DRIVER, REST)
"""Kinds of processes; of the shared memory, the governor and the driver there is one each, whatever the cluster's size."""

IN_FLIGHT_BYTES = 256 * 1024
"""Memory of a user in flight, all processes: 10,000 of them took 1.9 GiB more than 2,000 did (docs/log.md, 2026-11-21)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Means over the users of one run.

    Args:
        source: where and when it was measured, in words.
        requests: LLM requests a user.
        tool_calls: tool calls a user.
        prompt_tokens, completion_tokens: a user.
        cpu_s: seconds of a core a user, by kind of process, between the first user's start and the last one's end.
        process_bytes: memory of one process (PSS), by kind.
        in_flight_bytes: memory of a user in flight, over all processes.
        disk_bytes: the run folder's size a user.
        start_s: from the command to the first user.
        scoring_s: seconds a user after the last one has ended: the recommenders alone, the statistics, the report.
        num_deployments: retrieval deployments that `cpu_s[tool replicas]` is spread over.
    """

    source: str
    requests: float
    tool_calls: float
    prompt_tokens: float
    completion_tokens: float
    cpu_s: dict[str, float]
    process_bytes: dict[str, float]
    in_flight_bytes: float = IN_FLIGHT_BYTES
    disk_bytes: float
    start_s: float
    scoring_s: float
    num_deployments: int

    def write(self, path: Path) -> None:
        """Writes the costs for `--costs`."""
        write_json(path, asdict(self))


def read_costs(path: Path | None) -> Costs:
    """The costs of a file that `--measure` wrote, or those that come with the package.

    Raises:
        ConfigError: it cannot be read, or is something else.
    """
    content: Any
    if path is None:
        with resources.as_file(resources.files("toolrec.capacity") / "costs.json") as shipped:
            content = read_json(shipped, error=ConfigError)
    else:
        content = read_json(path, error=ConfigError)
    names = {field.name for field in fields(Costs)}
    if not isinstance(content, dict) or set(content) != names or set(content["cpu_s"]) != set(KINDS):
        raise ConfigError("this is no file of costs", value=str(path), hint="make one with `toolrec plan --measure DATASET`")
    return Costs(**content)
