"""`toolrec probe-memory`: what an LLM knows of a data set by heart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toolrec.cli.settings import resolved

if TYPE_CHECKING:
    from toolrec.probing import ProbeReport


def probe_memory(ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Ask an LLM after a data set's titles and histories, and compare it with guesses that need no LLM."""
    import asyncio
    import json
    from dataclasses import asdict

    config = resolved(ctx).settings
    llm_config = config.llm_config()

    from toolrec.data import load_dataset
    from toolrec.llm import OpenAIChat
    from toolrec.probing import probe_memory as asked

    dataset = load_dataset(config.dataset)

    async def ask() -> ProbeReport:
        async with OpenAIChat(llm_config) as llm:
            return await asked(dataset, llm, config)

    report = asyncio.run(ask())
    about = {"data_set": dataset.name, "dataset_checksum": dataset.checksum, "model": llm_config.model, "seed": config.seed}
    if as_json:
        typer.echo(json.dumps({**about, **asdict(report)}, indent=2))
        return
    _print(report, f"{llm_config.model} on {dataset.name}, seed {config.seed}")


def _print(report: ProbeReport, title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from toolrec.probing import BASELINES, PROBES
    from toolrec.util.printable import printable

    console = Console(highlight=False, markup=False)
    table = Table(title=printable(title, limit=200), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "asked", "right", "guess", "difference", "p"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=bool(heading))
    for probe in report.probes:
        low, high = probe.difference_interval
        table.add_row(
            PROBES[probe.name],
            f"{probe.num_questions:,}",
            f"{probe.share:.1%}",
            f"{probe.baseline:.1%}",
            f"{probe.difference:+.1%} ({low:+.1%} to {high:+.1%})",
            f"{probe.p:.4f}",
        )
    console.print(table)
    for probe in report.probes:
        console.print(f"guess at {PROBES[probe.name]}: {BASELINES[probe.name]}")
    for name, reason in report.skipped.items():
        console.print(f"not asked: {PROBES[name]}, because {reason}")
    known = [PROBES[probe.name] for probe in report.probes if probe.is_above]
    if known:
        console.print(f"It knows {' and '.join(known)} better than a guess: compare a run with --obscure both.")
    else:
        console.print("No share is above the guess at 95 %. That does not show that the LLM never read the data set.")
    usage = report.usage
    console.print(f"{usage.num_calls:,} calls, {usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens")
