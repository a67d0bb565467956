"""The formula: from the costs of a user and what limits a run to users a second, nodes, hours and dollars.

Symbols, as in docs/guides/sizing.md: a user makes `r` requests of `L` seconds and takes `c` seconds of a core in each kind of
process; a core is planned with at a share `u`. A run makes as many users a second as its narrowest limit lets through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from toolrec.capacity.config import PlanSettings
from toolrec.capacity.costs import DRIVER, GOVERNOR, MEMORY, SIMULATION, TOOLS, Costs
from toolrec.llm.prices import Price
from toolrec.records import Usage

HOUR_S = 3600.0
GIB = 1024.0**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The users a second that one thing lets through."""

    name: str
    users_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityPlan:
    """What a run takes.

    Args:
        users_per_s: while users are simulated.
        limits: narrowest first. The first one sets the pace, unless `is_paced`.
        is_paced: `--hours` asks for less than the limits would let through.
        is_too_slow: the limits let less through than `--hours` asks for.
        concurrency: users in flight.
        cores: cores' worth of work, by kind of process.
        num_actors: simulation actors.
        num_replicas: replicas of each tool.
        num_nodes: nodes.
        memory_bytes: over all nodes, without Ray's object stores.
        disk_bytes: the run folder.
        simulation_s: from the first user to the last.
        total_s: with the start and the scoring.
        llm_usd, nodes_usd: None where no price is known.
    """

    users_per_s: float
    limits: tuple[Limit, ...]
    is_paced: bool
    is_too_slow: bool
    concurrency: int
    cores: dict[str, float]
    num_actors: int
    num_replicas: int
    num_nodes: int
    memory_bytes: float
    disk_bytes: float
    simulation_s: float
    total_s: float
    llm_usd: float | None
    nodes_usd: float | None


def make_plan(settings: PlanSettings, costs: Costs, *, price: Price | None = None) -> CapacityPlan:
    """What a run of `settings.users` takes."""
    requests = settings.requests_per_user or costs.requests
    user_s = requests * settings.latency_s + sum(costs.cpu_s.values())
    limits = tuple(sorted(_limits(settings, costs, requests, user_s), key=lambda limit: limit.users_per_s))
    fastest = limits[0].users_per_s
    around_s = costs.start_s + settings.users * costs.scoring_s
    wanted = None
    if settings.hours is not None:
        left_s = settings.hours * HOUR_S - around_s
        wanted = settings.users / left_s if left_s > 0 else math.inf
    users_per_s = fastest if wanted is None else min(wanted, fastest)
    concurrency = max(1, math.ceil(users_per_s * user_s))
    cores = {kind: users_per_s * seconds / settings.utilisation for kind, seconds in costs.cpu_s.items()}
    num_actors = max(1, math.ceil(cores[SIMULATION]))
    num_replicas = max(1, math.ceil(cores[TOOLS] / costs.num_deployments))
    memory_bytes = _memory(costs, concurrency, num_actors, num_replicas)
    by_cores = math.ceil(sum(cores.values()) / settings.cpus_per_node)
    num_nodes = max(1, by_cores, math.ceil(memory_bytes / (settings.memory_per_node_gib * GIB)))
    simulation_s = settings.users / users_per_s
    total_s = simulation_s + around_s
    rate = settings.usd_per_node_hour
    return CapacityPlan(
        users_per_s=users_per_s,
        limits=limits,
        is_paced=wanted is not None and wanted < fastest,
        is_too_slow=wanted is not None and wanted > fastest,
        concurrency=concurrency,
        cores=cores,
        num_actors=num_actors,
        num_replicas=num_replicas,
        num_nodes=num_nodes,
        memory_bytes=memory_bytes,
        disk_bytes=settings.users * costs.disk_bytes,
        simulation_s=simulation_s,
        total_s=total_s,
        llm_usd=None if price is None else settings.users * _user_usd(price, costs, requests),
        nodes_usd=None if rate is None else num_nodes * rate * total_s / HOUR_S,
    )


def _limits(settings: PlanSettings, costs: Costs, requests: float, user_s: float) -> list[Limit]:
    limits = [
        Limit(name=f"the {kind} (one process)", users_per_s=settings.utilisation / costs.cpu_s[kind])
        for kind in (DRIVER, MEMORY, GOVERNOR)
        if costs.cpu_s[kind] > 0
    ]
    if settings.requests_per_minute is not None:
        limits.append(Limit(name="--requests-per-minute", users_per_s=settings.requests_per_minute / 60 / requests))
    if settings.tokens_per_minute is not None:
        tokens = (costs.prompt_tokens + costs.completion_tokens) * requests / costs.requests
        limits.append(Limit(name="--tokens-per-minute", users_per_s=settings.tokens_per_minute / 60 / tokens))
    if settings.concurrency is not None:
        limits.append(Limit(name="--concurrency", users_per_s=settings.concurrency / user_s))
    if settings.nodes is not None:
        cores = settings.nodes * settings.cpus_per_node * settings.utilisation
        limits.append(Limit(name="--nodes", users_per_s=cores / sum(costs.cpu_s.values())))
    return limits


def _memory(costs: Costs, concurrency: int, num_actors: int, num_replicas: int) -> float:
    counts = {SIMULATION: num_actors, TOOLS: num_replicas * costs.num_deployments}
    processes = sum(counts.get(kind, 1) * size for kind, size in costs.process_bytes.items())
    return processes + concurrency * costs.in_flight_bytes


def _user_usd(price: Price, costs: Costs, requests: float) -> float:
    share = requests / costs.requests
    prompt, completion = round(costs.prompt_tokens * share), round(costs.completion_tokens * share)
    return price.cost_usd(Usage(prompt_tokens=prompt, completion_tokens=completion))
