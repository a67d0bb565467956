"""`toolrec llm`: try an endpoint, or serve the embedded one."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from toolrec.llm.check import CheckReport

app = typer.Typer(help="Try an LLM endpoint, or serve the embedded one.", no_args_is_help=True)


class CheckedProtocol(StrEnum):
    """Which protocols to try."""

    both = "both"
    tools = "tools"
    text = "text"


@app.command()
def check(
    llm_url: Annotated[
        str | None,
        typer.Option(envvar="TOOLREC_LLM_URL", help="Base URL of an OpenAI-like endpoint; default the embedded rules."),
    ] = None,
    llm_model: Annotated[str | None, typer.Option(envvar="TOOLREC_LLM_MODEL", help="Model name at that endpoint.")] = None,
    llm_key_env: Annotated[str, typer.Option(help="Environment variable that holds the key.")] = "OPENAI_API_KEY",
    protocol: Annotated[CheckedProtocol, typer.Option(help="Protocols to try.")] = CheckedProtocol.both,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature; default the endpoint's own.")] = None,
    llm_seed: Annotated[int | None, typer.Option(help="Seed sent with every call.")] = None,
    timeout_s: Annotated[float, typer.Option(help="Seconds an HTTP request may take.")] = 60.0,
) -> None:
    """Try address, key, model and both protocols with three short replies, before anything is spent."""
    import asyncio
    from contextlib import ExitStack

    from toolrec.errors import ConfigError
    from toolrec.llm.check import PROTOCOLS, check_endpoint
    from toolrec.llm.config import LLMConfig
    from toolrec.llm.embedded import run_in_thread
    from toolrec.llm.embedded.policy import LABEL, MODEL_NAME

    protocols = PROTOCOLS if protocol is CheckedProtocol.both else (protocol.value,)
    if llm_url is None and llm_model not in (None, MODEL_NAME):
        raise ConfigError("--llm-model needs --llm-url", value=llm_model)
    with ExitStack() as stack:
        is_embedded = llm_url is None
        config = LLMConfig(
            base_url=stack.enter_context(run_in_thread()).base_url if llm_url is None else llm_url,
            model=MODEL_NAME if is_embedded else llm_model or "",
            api_key_env="" if is_embedded else llm_key_env,
            temperature=temperature,
            seed=llm_seed,
            concurrency=1,
            max_attempts=2,
            timeout_s=timeout_s,
            total_timeout_s=2 * timeout_s,
        )
        report = asyncio.run(check_endpoint(config, protocols=protocols))
    title = f"{MODEL_NAME} ({LABEL})" if is_embedded else f"{config.model} at {config.base_url}"
    _print_report(report, title)
    if not report.protocols:
        typer.echo("No protocol works with this endpoint.", err=True)
        raise typer.Exit(2)
    typer.echo(f"Use --protocol {report.protocols[0]}." + (" Both protocols work." if len(report.protocols) > 1 else ""))


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8399,
    latency_s: Annotated[float, typer.Option(help="Seconds by which each reply is held back.")] = 0.0,
    share_typos: Annotated[float, typer.Option(help="Share of lists with a misspelt entry.")] = 0.0,
    share_invented: Annotated[float, typer.Option(help="Share of lists with an invented item.")] = 0.0,
    share_short: Annotated[float, typer.Option(help="Share of lists that end half way.")] = 0.0,
    share_malformed: Annotated[float, typer.Option(help="Share of replies that are no action or list.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of these faults.")] = 0,
) -> None:
    """Serve the embedded endpoint: chat completions by rules, with seeded faults where asked."""
    from toolrec.llm.embedded import EmbeddedOptions
    from toolrec.llm.embedded.policy import LABEL, MODEL_NAME
    from toolrec.llm.embedded.server import base_url_of, open_listener, serve_forever

    options = EmbeddedOptions(
        latency_s=latency_s,
        share_typos=share_typos,
        share_invented=share_invented,
        share_short=share_short,
        share_malformed=share_malformed,
        seed=seed,
    )
    with open_listener(host, port) as listener:
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
