"""`toolrec show`: a run's table, or one user's trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolrec.cli.runs.arguments import RunFolder

if TYPE_CHECKING:
    from rich.console import Console

    from toolrec.evaluation.traces import ShownItem, ShownRound, ShownTrace


def show(
    run: RunFolder,
    user: Annotated[
        str | None, typer.Option(help="Whose trace is shown: a user id of the data set, or a user index from 1.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Every table and fact, not only the headline.")] = False,
) -> None:
    """Print a run's figures, or with --user one user's trace: rounds, thoughts, tool calls, final list."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if user is None:
        _show_figures(run, console, full=full)
    else:
        _show_user(run, user, console)


def _show_figures(run: Path, console: Console, *, full: bool) -> None:
    from toolrec.errors import RunFolderError
    from toolrec.evaluation.tables import print_summary
    from toolrec.runs.run import load_run

    summary = load_run(run).summary_json
    try:
        print_summary(summary, console, full=full)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"the run's summary.json is damaged ({error!r})", value=str(run)) from None


def _show_user(path: Path, user: str, console: Console) -> None:
    from toolrec.evaluation.traces import show_trace
    from toolrec.runs.run import find_dataset, load_run

    run = load_run(path)
    trace = run.trace(user)
    dataset, why_not = find_dataset(run)
    if dataset is None:
        console.print(f"without titles and target: {why_not}", style="yellow", markup=False)
    split = run.manifest["settings"]["split"]
    shown = show_trace(
        trace,
        pool=dataset.pool if dataset else None,
        targets=[item for item in dataset.all_targets(split)[trace.user_index].tolist() if item] if dataset else (),
    )
    _print_trace(shown, console)


def _print_trace(trace: ShownTrace, console: Console) -> None:
    how = f", strategy {trace.strategy}" if trace.strategy else ""
    console.print(f"User {trace.user_id}, attempt {trace.attempt}{how}, ended by {trace.ended_by}", style="bold")
    if trace.error:
        console.print(f"error: {trace.error}", style="red")
    for role, text in trace.opening:
        console.rule(f"opening message, {role}", align="left")
        console.print(text, style="dim")
    for shown in trace.rounds:
        _print_round(shown, console)
    console.rule("final list", align="left")
    if not trace.final:
        console.print("none")
    for item in trace.final:
        _print_item(item, console)
    _print_end(trace, console)


def _print_round(shown: ShownRound, console: Console) -> None:
    console.rule(f"round {shown.number}", align="left")
    console.print(f"Thought: {shown.thought or '(none)'}")
    console.print(f"Action:  {shown.action or '(none)'}", style="cyan")
    for reason in shown.reasons:
        console.print(f"Re-ask:  {reason}", style="yellow")
    if shown.error:
        console.print(f"Error:   {shown.error}", style="red")
    for item in shown.items:
        _print_item(item, console)
    if shown.num_more:
        console.print(f"     … and {shown.num_more} more")
    if shown.counts:
        console.print(f"Counts:  {shown.counts}")


def _print_item(item: ShownItem, console: Console) -> None:
    from rich.cells import cell_len
    from rich.padding import Padding
    from rich.text import Text

    style = "bold green" if item.is_target else ""
    name = f"{item.position:4}. {item.name}{'  <- target' if item.is_target else ''}"
    marks = ", ".join(item.marks)
    if marks and cell_len(f"{name}  {marks}") > console.width:
        console.print(name, style=style)
        console.print(Padding(Text(marks), (0, 0, 0, 8), expand=False), style=style)
    else:
        console.print(f"{name}  {marks}" if marks else name, style=style)


def _print_end(trace: ShownTrace, console: Console) -> None:
    console.rule("end", align="left")
    for target in trace.targets:
        place = f"hit at position {target.position}" if target.position else "a miss"
        seen = f"returned by {', '.join(target.marks)}" if target.marks else "no tool returned it"
        console.print(f"Target:  {target.name}: {place}; {seen}")
    console.print(f"Memory:  {trace.num_candidates} candidates{'; ' + trace.counts if trace.counts else ''}")
    console.print(f"Tokens:  {trace.tokens or 'none'}")
    console.print(f"Ended:   {trace.ended_by} after {len(trace.rounds)} rounds and {trace.seconds:.1f} s")
