"""`toolrec show`: a run's table, or one user's trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from toolrec.data import Dataset
    from toolrec.evaluation.traces import ShownItem, ShownRound, ShownTrace

Run = Annotated[Path, typer.Argument(help="Run folder, as `toolrec evaluate` writes it.", show_default=False)]


def show(
    run: Run,
    user: Annotated[str | None, typer.Option(help="User id (as in the data set) whose trace is shown.")] = None,
) -> None:
    """Print a run's figures, or with --user one user's trace: rounds, thoughts, tool calls, final list."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if user is None:
        _show_figures(run, console)
    else:
        _show_user(run, user, console)


def _show_figures(run: Path, console: Console) -> None:
    from toolrec.errors import RunFolderError
    from toolrec.evaluation.tables import print_summary
    from toolrec.files import read_json
    from toolrec.simulation.run_folder import SUMMARY, read_manifest

    read_manifest(run)
    if not (run / SUMMARY).is_file():
        raise RunFolderError(
            "the run has no figures yet", value=str(run), hint="finish it with `toolrec evaluate … --run … --resume`"
        )
    summary = read_json(run / SUMMARY, error=RunFolderError)
    try:
        print_summary(summary, console)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{SUMMARY} is damaged ({error!r})", value=str(run / SUMMARY)) from None


def _show_user(run: Path, user_id: str, console: Console) -> None:
    from toolrec.errors import RunFolderError
    from toolrec.evaluation.traces import show_trace
    from toolrec.simulation.run_folder import read_manifest, read_rounds, read_users

    manifest = read_manifest(run)
    users = read_users(run)
    found = users[users["user_id"] == user_id]
    if found.empty:
        some = ", ".join(users["user_id"].head(5))
        raise RunFolderError(
            "the run holds no such user", value=user_id, allowed=f"one of its {len(users)} users, as {some}" if some else None
        )
    row = found.iloc[0]
    dataset = _dataset_of(manifest, console)
    split = manifest["settings"]["split"]
    trace = show_trace(
        row,
        read_rounds(run, int(row["user_index"])),
        pool=dataset.pool if dataset else None,
        target=dataset.target(int(row["user_index"]), split) if dataset else None,
    )
    _print_trace(trace, console)


def _dataset_of(manifest: dict[str, Any], console: Console) -> Dataset | None:
    """The run's data set, or None with a word about it where it is gone or another one by now."""
    from toolrec.data import load_dataset
    from toolrec.errors import DataError

    try:
        dataset = load_dataset(Path(manifest["dataset"]["path"]))
    except DataError as error:
        console.print(f"without titles and target: {error}", style="yellow")
        return None
    if dataset.checksum != manifest["settings"]["dataset_checksum"]:
        console.print("without titles and target: the data set is another one by now", style="yellow")
        return None
    return dataset


def _print_trace(trace: ShownTrace, console: Console) -> None:
    console.print(f"User {trace.user_id}, attempt {trace.attempt}, ended by {trace.ended_by}", style="bold")
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
    marks = f"  {', '.join(item.marks)}" if item.marks else ""
    target = "  <- target" if item.is_target else ""
    console.print(f"{item.position:4}. {item.name}{marks}{target}", style="bold green" if item.is_target else "")


def _print_end(trace: ShownTrace, console: Console) -> None:
    console.rule("end", align="left")
    if trace.position is not None:
        place = f"hit at position {trace.position}" if trace.position else "a miss"
        seen = f"returned by {', '.join(trace.target_marks)}" if trace.target_marks else "no tool returned it"
        console.print(f"Target:  {trace.target}: {place}; {seen}")
    console.print(f"Memory:  {trace.num_candidates} candidates{'; ' + trace.counts if trace.counts else ''}")
    console.print(f"Tokens:  {trace.tokens or 'none'}")
    console.print(f"Ended:   {trace.ended_by} after {len(trace.rounds)} rounds and {trace.seconds:.1f} s")
