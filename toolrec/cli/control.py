"""`toolrec control`: limits of a run that is under way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

NO_LIMIT = "none"

Run = Annotated[Path, typer.Argument(help="Run folder of a run that is under way.", show_default=False)]


def control(
    run: Run,
    requests_per_minute: Annotated[str | None, typer.Option(help="LLM requests a minute over all nodes, or `none`.")] = None,
    tokens_per_minute: Annotated[str | None, typer.Option(help="LLM tokens a minute over all nodes, or `none`.")] = None,
    llm_concurrency: Annotated[str | None, typer.Option(help="LLM requests in flight at most, or `none`.")] = None,
    pause: Annotated[bool, typer.Option("--pause", help="Begin no LLM request until --resume.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after --pause.")] = False,
) -> None:
    """Show what a run may ask of its LLM endpoint, or change it; the run takes it up within a second or so."""
    from dataclasses import replace

    from toolrec.errors import ConfigError, RunFolderError
    from toolrec.simulation.control import change_settings, current_settings
    from toolrec.simulation.run_folder import is_at_work

    if pause and resume:
        raise ConfigError("--pause and --resume do not go together")
    before = current_settings(run)
    changes: dict[str, Any] = {}
    if requests_per_minute is not None:
        changes["requests_per_minute"] = _number("--requests-per-minute", requests_per_minute, float)
    if tokens_per_minute is not None:
        changes["tokens_per_minute"] = _number("--tokens-per-minute", tokens_per_minute, float)
    if llm_concurrency is not None:
        changes["llm_concurrency"] = _number("--llm-concurrency", llm_concurrency, int)
    if pause or resume:
        changes["is_paused"] = pause
    after = replace(before, **changes)
    if changes and not is_at_work(run):
        raise RunFolderError("no process is at work in the run folder", value=str(run), hint="--resume it with other limits")
    if changes:
        change_settings(run, after)
    typer.echo(f"requests a minute    {_shown(after.requests_per_minute)}")
    typer.echo(f"tokens a minute      {_shown(after.tokens_per_minute)}")
    typer.echo(f"requests in flight   {_shown(after.llm_concurrency)}")
    typer.echo(f"paused               {'yes' if after.is_paused else 'no'}")


def _number(flag: str, text: str, kind: type[int] | type[float]) -> float | None:
    """A flag's number, or None for `none`.

    Raises:
        ConfigError: it is neither.
    """
    from toolrec.errors import ConfigError

    if text == NO_LIMIT:
        return None
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{flag} is no number", value=text, allowed=f"a number, or {NO_LIMIT}") from None


def _shown(limit: float | None) -> str:
    return "no limit" if limit is None else f"{limit:,.16g}"
