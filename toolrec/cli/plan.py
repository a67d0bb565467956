"""`toolrec plan`: what a large run takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from toolrec.cli.settings import resolved

if TYPE_CHECKING:
    from toolrec.capacity.config import PlanSettings
    from toolrec.capacity.costs import Costs
    from toolrec.capacity.plan import CapacityPlan
    from toolrec.llm.prices import Price


def plan(ctx: typer.Context) -> None:
    """Say how many nodes, actors, replicas, hours and dollars a run takes, from measured costs of a user.

    The formula is in the guide "Size a cluster". `--measure DATASET` measures the costs on this machine first.
    """
    from pathlib import Path

    from toolrec.capacity.costs import read_costs
    from toolrec.capacity.measure import measure, with_requests_of
    from toolrec.capacity.plan import make_plan
    from toolrec.errors import ConfigError
    from toolrec.runs.folder import read_users

    settings: PlanSettings = resolved(ctx).settings
    if settings.measure is not None and settings.costs is not None:
        raise ConfigError("--measure and --costs do not go together", value=str(settings.costs))
    if settings.out is not None and settings.measure is None:
        raise ConfigError("--out needs --measure", value=str(settings.out))
    price = _price(settings)
    if settings.measure is None:
        costs = read_costs(settings.costs)
    else:
        costs = measure(settings.measure, settings.recommenders, num_users=settings.measured_users)
        out = settings.out or Path(f"{settings.measure.name}-costs.json")
        costs.write(out)
        typer.echo(f"measured costs: {out}", err=True)
    if settings.run is not None:
        users = read_users(settings.run)
        if users.empty:
            raise ConfigError("no user of this run has ended yet", value=str(settings.run))
        costs = with_requests_of(costs, users)
    _print(settings, costs, make_plan(settings, costs, price=price))


def _price(settings: PlanSettings) -> Price | None:
    from toolrec.errors import ConfigError
    from toolrec.llm.prices import PriceTable

    if settings.prices is None or settings.model is None:
        return None
    table = PriceTable.read(settings.prices)
    price = table.price_of(settings.model)
    if price is None:
        raise ConfigError("no price for this model in --prices", value=settings.model, allowed=table.models)
    return price


def _print(settings: PlanSettings, costs: Costs, made: CapacityPlan) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from toolrec.capacity.plan import GIB

    console = Console(highlight=False)
    cpu_ms = 1000 * sum(costs.cpu_s.values())
    console.print(f"Costs of a user: {costs.source}.")
    console.print(f"{costs.requests:.1f} requests, {costs.tool_calls:.1f} tool calls, {cpu_ms:.1f} ms of CPU.")
    console.print(f"The LLM runs elsewhere and takes {settings.latency_s:g} s a reply.\n")

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    table.add_row("users a second", f"{made.users_per_s:,.1f}", _pace(made))
    table.add_row("users in flight", f"{made.concurrency:,}", "--concurrency")
    table.add_row("simulation actors", f"{made.num_actors:,}", "--actors")
    table.add_row("replicas of each tool", f"{made.num_replicas:,}", "--tools-config; calls spread evenly over the tools")
    table.add_row("cores", f"{sum(made.cores.values()):,.1f}", f"at {settings.utilisation:.0%} of a core")
    table.add_row("nodes", f"{made.num_nodes:,}", f"of {settings.cpus_per_node:g} CPUs, {settings.memory_per_node_gib:g} GiB")
    table.add_row("memory", f"{made.memory_bytes / GIB:,.1f} GiB", "all nodes, without object stores")
    table.add_row("run folder", f"{made.disk_bytes / GIB:,.1f} GiB", "")
    table.add_row("simulation", _duration(made.simulation_s), "")
    table.add_row("in all", _duration(made.total_s), "with the start, and the scoring of all users by one process")
    if made.llm_usd is not None:
        table.add_row("LLM", f"${made.llm_usd:,.2f}", f"{settings.model}, without its own prompt cache")
    if made.nodes_usd is not None:
        table.add_row("nodes", f"${made.nodes_usd:,.2f}", "")
    console.print(table)

    limits = Table(title="What lets how many users a second through", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    limits.add_column("limit")
    limits.add_column("users a second", justify="right")
    for limit in made.limits:
        limits.add_row(limit.name, f"{limit.users_per_s:,.1f}")
    console.print(limits)
    if made.is_too_slow:
        around_s = made.total_s - made.simulation_s
        console.print(
            f"{settings.hours:g} hours are not enough: {made.limits[0].name} sets the pace, and the start and the scoring take "
            f"{_duration(around_s)}.",
            style="yellow",
        )
    if made.llm_usd is None:
        console.print("Dollars of the LLM are not known: --prices FILE and --llm-model give them.")


def _pace(made: CapacityPlan) -> str:
    return "set by --hours" if made.is_paced else f"set by {made.limits[0].name}"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 5400 else f"{seconds / 60:,.1f} min"
