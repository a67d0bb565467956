"""`toolrec control`: limits of a run that is under way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolrec.cli.places import PLACE
from toolrec.cli.settings import Tree, resolved

LIMITS = Tree(settings="toolrec.llm.flow.governor:FlowSettings")

Run = Annotated[
    Path, typer.Argument(**PLACE | {"metavar": "RUN"}, help="Run folder of a running evaluation.", show_default=False)
]


def control(
    ctx: typer.Context,
    run: Run,
    pause: Annotated[bool, typer.Option("--pause", help="Start no LLM request until --resume.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue after --pause.")] = False,
) -> None:
    """Show or change the limits of a running evaluation; changes take effect within about a second."""
    from toolrec.errors import ConfigError, RunFolderError
    from toolrec.llm.flow.governor import FlowSettings
    from toolrec.runs.control import change_settings, current_settings
    from toolrec.runs.folder import is_at_work
    from toolrec.util.settings_sources import Layer

    if pause and resume:
        raise ConfigError("--pause and --resume do not go together")
    before = current_settings(run)
    after: FlowSettings = resolved(ctx, base=lambda _: [Layer("the run", before.as_json())]).settings
    if pause or resume:
        after = after.replaced(is_paused=pause)
    if after != before:
        if not is_at_work(run):
            raise RunFolderError("no process is at work in the run folder", value=str(run), hint="--resume it with other limits")
        change_settings(run, after)
    typer.echo(f"requests a minute    {_shown(after.requests_per_minute)}")
    typer.echo(f"tokens a minute      {_shown(after.tokens_per_minute)}")
    typer.echo(f"requests in flight   {_shown(after.llm_concurrency)}")
    typer.echo(f"paused               {'yes' if after.is_paused else 'no'}")


def _shown(limit: float | None) -> str:
    return "no limit" if limit is None else f"{limit:,.16g}"
