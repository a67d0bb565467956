"""`toolrec plan-users`: how many users a comparison needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolrec.cli.places import PLACE

if TYPE_CHECKING:
    from toolrec.evaluation.planning import Plan


def plan_users(
    difference: Annotated[float, typer.Option(help="The true difference that is to be found, as 0.03.", show_default=False)],
    run: Annotated[
        Path | None,
        typer.Option(**PLACE, help="A finished run whose spread is taken; without one it follows from --hit-rate."),
    ] = None,
    metric: Annotated[str, typer.Option(help="With --run: the figure that is compared.")] = "recall@10",
    row: Annotated[str, typer.Option(help="With --run: the row that is compared.")] = "surrogate",
    reference: Annotated[str, typer.Option(help="With --run: the row it is compared to.")] = "backbone",
    hit_rate: Annotated[float, typer.Option(help="Without --run: the share of users whose target is hit.")] = 0.2,
    differing: Annotated[
        float | None,
        typer.Option(help="Without --run: the share of users hit by one of the two only; default: unrelated lists."),
    ] = None,
    power: Annotated[float, typer.Option(help="The chance of finding it.")] = 0.8,
    confidence: Annotated[float, typer.Option(help="1 - the level of the two-sided paired test.")] = 0.95,
) -> None:
    """Say how many users a paired comparison needs, and what fewer or more of them would find."""
    from toolrec.evaluation.planning import Spread, make_plan
    from toolrec.runs.run import load_run

    if run is None:
        spread = Spread.of_hits(hit_rate, differing=differing, difference=difference)
    else:
        spread = Spread.of_summary(load_run(run).summary_json, metric=metric, row=row, reference=reference)
    _print(make_plan(difference, spread, power=power, confidence=confidence))


def _print(plan: Plan) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(
        f"{plan.num_users:,} users are needed to find a difference of {plan.difference:g} {plan.power:.0%} of the time "
        f"({plan.confidence:.0%} confidence)."
    )
    if plan.users_in_data_set is not None and plan.num_users > plan.users_in_data_set:
        console.print(f"The data set has only {plan.users_in_data_set:,}.", style="yellow")
    console.print(f"Spread: {plan.spread.deviation:.3f}, {plan.spread.source}.\n")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("users", f"found {plan.power:.0%} of the time: at least", f"power for {plan.difference:g}"):
        table.add_column(heading, justify="right")
    for size in plan.sizes:
        table.add_row(f"{size.num_users:,}", f"{size.detectable:.4f}", f"{size.power:.0%}")
    console.print(table)
    console.print("Users only: differences between trainings of the same recommenders come on top.")
