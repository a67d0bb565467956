"""`toolrec spend`: what a run spent, by user, round, tool or purpose."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolrec.cli.runs.arguments import RunFolder

if TYPE_CHECKING:
    from toolrec.llm.prices import Price
    from toolrec.runs.ledger import Spend

SHOWN_ROWS = 40
"""Rows of the table at most; `--json` has all."""

NAME_WIDTH = 22
"""A tool's name as in `Retrieve[release_year]` stays on one line."""


class Key(StrEnum):
    """What the ledger is summed by."""

    user = "user"
    round = "round"
    tool = "tool"
    purpose = "purpose"


def spend(
    run: RunFolder,
    by: Annotated[Key, typer.Option(help="What to sum by. A decision counts for the tool that it called.")] = Key.purpose,
    prices: Annotated[Path | None, typer.Option(help="Price file; default: the price that the run was started with.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every row.")] = False,
) -> None:
    """Print what a run spent: calls, tokens and dollars. Lost attempts are included and shown apart."""
    import json

    from toolrec.llm.prices import PriceTable
    from toolrec.runs.ledger import Spend, spend_by, total_usage
    from toolrec.runs.run import load_run

    opened = load_run(run)
    ledger, model = opened.spend, opened.manifest["settings"]["llm.model"]
    price = opened.price if prices is None else PriceTable.read(prices).price_of(model)
    void = ledger[ledger["is_void"]]
    total = Spend(key="total", usage=total_usage(ledger), void_usage=total_usage(void))
    spends = spend_by(ledger, by.value)
    if as_json:
        content = {
            "by": by.value,
            "model": model,
            "price": price.as_json() if price else None,
            "rows": [_as_json(row, price) for row in spends],
            "total": _as_json(total, price),
        }
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        users = opened.users
        names = dict(zip(users["user_index"].tolist(), users["user_id"].tolist(), strict=True)) if by is Key.user else {}
        _print_table([*spends[:SHOWN_ROWS], total], price, key=by.value, names=names, num_left_out=len(spends) - SHOWN_ROWS)
        if price is None:
            typer.echo(f"dollars are not known: no price for {model}; --prices FILE gives one")


def _as_json(row: Spend, price: Price | None) -> dict[str, Any]:
    from dataclasses import asdict

    def part(usage: Any) -> dict[str, Any]:
        return {**asdict(usage), "usd": price.cost_usd(usage) if price else None}

    return {"key": row.key, **part(row.usage), "void": part(row.void_usage)}


def _print_table(rows: list[Spend], price: Price | None, *, key: str, names: dict[int, str], num_left_out: int) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from toolrec.evaluation.tables import dollars
    from toolrec.util.printable import printable

    columns = [
        ("calls", [f"{row.usage.num_calls:,}" for row in rows]),
        ("requests", [f"{row.usage.num_attempts:,}" for row in rows]),
        ("prompt", [f"{row.usage.prompt_tokens:,}" for row in rows]),
        ("cached", [f"{row.usage.cached_tokens:,}" for row in rows]),
        ("reply", [f"{row.usage.completion_tokens:,}" for row in rows]),
        ("dollars", [dollars(price.cost_usd(row.usage) if price else None) for row in rows]),
        ("void", [f"{row.void_usage.prompt_tokens + row.void_usage.completion_tokens:,}" for row in rows]),
        ("stored", [f"{row.usage.num_stored_replies:,}" for row in rows]),
    ]
    # A column that says nothing takes the names' room.
    nothing = {"cached": "0", "void": "0", "stored": "0", "dollars": dollars(None)}
    columns = [(heading, cells) for heading, cells in columns if set(cells) != {nothing.get(heading)}]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(key, overflow="fold", min_width=NAME_WIDTH)
    for heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        name = names.get(row.key, f"(number {row.key})") if isinstance(row.key, int) and key == "user" else row.key
        if row is rows[-1]:
            if num_left_out > 0:
                table.add_row(f"… and {num_left_out:,} more")
            table.add_section()
        table.add_row(Text(printable(str(name), limit=80)), *(cells[number] for _, cells in columns))
    Console(highlight=False).print(table)
    shown = {heading for heading, _ in columns}
    cached = ", those of them in the endpoint's cache" if "cached" in shown else ""
    void = "; void: tokens of attempts that came to nothing" if "void" in shown else "; no attempt came to nothing"
    typer.echo(f"tokens of prompts{cached}, of replies{void}")
