"""`toolrec llm`: try an endpoint, or serve the embedded one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from toolrec.cli.settings import TREES, command_of, resolved

if TYPE_CHECKING:
    from toolrec.llm.embedded.options import ServedOptions
    from toolrec.surrogate.check import CheckReport
    from toolrec.surrogate.config import CheckSettings

app = typer.Typer(help="Try an LLM endpoint, or serve the embedded one.", no_args_is_help=True)


@app.command(cls=command_of(TREES["llm check"]))
def check(ctx: typer.Context) -> None:
    """Try address, key, model and the protocols with a few short replies, before anything is spent."""
    import asyncio
    from contextlib import ExitStack

    settings: CheckSettings = resolved(ctx).settings

    from toolrec.errors import ConfigError
    from toolrec.llm.config import LLMConfig
    from toolrec.llm.embedded import run_in_thread
    from toolrec.llm.embedded.policy import LABEL, MODEL_NAME
    from toolrec.surrogate.check import PROTOCOLS, check_endpoint

    llm = settings.llm
    protocols = PROTOCOLS if settings.protocol == "all" else (settings.protocol,)
    is_embedded = llm.base_url is None
    if is_embedded and llm.model not in (None, MODEL_NAME):
        raise ConfigError("--llm-model needs --llm-url", value=llm.model)
    with ExitStack() as stack:
        config = llm.extended(
            LLMConfig,
            base_url=stack.enter_context(run_in_thread()).base_url if is_embedded else llm.base_url,
            model=MODEL_NAME if is_embedded else llm.model or "",
            api_key_env="" if is_embedded else llm.api_key_env,
            concurrency=1,
        )
        report = asyncio.run(check_endpoint(config, protocols=protocols))
    title = f"{MODEL_NAME} ({LABEL})" if is_embedded else f"{config.model} at {config.base_url}"
    _print_report(report, title)
    if not report.protocols:
        typer.echo("No protocol works with this endpoint.", err=True)
        raise typer.Exit(2)
    typer.echo(
        f"Use --protocol {report.protocols[0]}."
        + (f" These work: {', '.join(report.protocols)}." if len(report.protocols) > 1 else "")
    )


@app.command(cls=command_of(TREES["llm serve"]))
def serve(ctx: typer.Context) -> None:
    """Serve the embedded endpoint: chat completions by rules, with seeded faults where asked."""
    options: ServedOptions = resolved(ctx).settings

    from toolrec.llm.embedded.policy import LABEL, MODEL_NAME
    from toolrec.llm.embedded.server import base_url_of, open_listener, serve_forever

    with open_listener(options.host, options.port) as listener:
        typer.echo(f"{base_url_of(listener)}  model {MODEL_NAME} ({LABEL})")
        serve_forever(options, listener)


def _print_report(report: CheckReport, title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for heading in ("tried", "", "found", "cost", "what to do"):
        table.add_column(heading, overflow="fold")
    colours = {"ok": "green", "note": "yellow", "failed": "red"}
    for row in report.rows:
        table.add_row(row.name, Text(row.status, style=colours[row.status]), Text(row.detail), row.cost, Text(row.advice))
    Console().print(table)
