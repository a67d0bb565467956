"""`toolrec evaluate`: the main job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toolrec.cli.settings import resolved

if TYPE_CHECKING:
    from toolrec.config import RunConfig
    from toolrec.evaluation.bill import Bill


def evaluate(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Simulate a few users and estimate what all would cost.")] = False,
    dry_run_users: Annotated[int, typer.Option(help="How many users a dry run takes.", min=1)] = 20,
) -> None:
    """Simulate users with LLM surrogates, score their lists, and compare them with the recommenders alone."""
    config = resolved(ctx).settings

    from toolrec.evaluation.tables import print_summary
    from toolrec.pipeline import run_evaluation

    if dry_run:
        _print_dry_run(config, dry_run_users)
        return
    summary, folder = run_evaluation(config)
    print_summary(summary)
    typer.echo(f"run folder: {folder}")


def _print_dry_run(config: RunConfig, num_tried: int) -> None:
    from toolrec.dry_run import try_few_users
    from toolrec.evaluation.bill import DOLLARS

    bill, folder = try_few_users(config, num_tried=num_tried)
    _print_bill(bill)
    if all(estimate.name != DOLLARS for estimate in bill.estimates):
        model = config.llm.model or "the embedded rules"
        typer.echo(f"dollars are not known: no price for {model}; --prices FILE gives one")
    if bill.num_stored_replies:
        typer.echo(f"{bill.num_stored_replies:,} of the calls were answered by stored replies; they count at what they had cost")
    typer.echo(f"dry run's folder: {folder}")


def _print_bill(bill: Bill) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from toolrec.evaluation.bill import DOLLARS
    from toolrec.evaluation.tables import dollars

    table = Table(title=f"Estimate from {bill.num_tried:,} users", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "a user", "95% interval", f"all {bill.num_users:,} users", "95% interval"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for estimate in bill.estimates:
        shown = dollars if estimate.name == DOLLARS else _amount
        cells: list[str] = []
        for factor in (1, bill.num_users):
            cells.append(shown(factor * estimate.mean))
            bounds = () if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)
            cells.append("–".join(shown(factor * bound) for bound in bounds))
        table.add_row(estimate.name, *cells)
    Console(highlight=False).print(table)


def _amount(amount: float | None) -> str:
    return f"{amount:,.1f}" if amount is not None and amount < 100 else f"{amount:,.0f}"
