"""`toolrec spend`: what a run spent, by user, round, tool or purpose."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from toolrec.llm.prices import Price
    from toolrec.simulation.spend import Spend

SHOWN_ROWS = 40
"""Rows of the table at most; `--json` has all."""

Run = Annotated[
    Path, typer.Argument(help="Run folder, as `toolrec evaluate` writes it; also of a run under way.", show_default=False)
]


class Key(StrEnum):
    """What the ledger is summed by."""

    user = "user"
    round = "round"
    tool = "tool"
    purpose = "purpose"


def spend(
    run: Run,
    by: Annotated[Key, typer.Option(help="What to sum by. A decision counts for the tool that it called.")] = Key.purpose,
    prices: Annotated[Path | None, typer.Option(help="Price file; default the price that the run was started with.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every row.")] = False,
) -> None:
    """Print a run's ledger: calls, tokens and dollars, attempts that came to nothing included and shown apart."""
    import json

    from toolrec.simulation.run_folder import read_manifest, read_spend, read_users
    from toolrec.simulation.spend import Spend, ledger_of, spend_by, total_usage

    manifest, users = read_manifest(run), read_users(run)
    ledger = ledger_of(read_spend(run), users)
    price = _price(prices, manifest)
    void = ledger[ledger["is_void"]]
    total = Spend(key="total", usage=total_usage(ledger), void_usage=total_usage(void))
    spends = spend_by(ledger, by.value)
    if as_json:
        content = {
            "by": by.value,
            "model": manifest["settings"]["llm.model"],
            "price": price.as_json() if price else None,
            "rows": [_as_json(row, price) for row in spends],
            "total": _as_json(total, price),
        }
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        names = dict(zip(users["user_index"].tolist(), users["user_id"].tolist(), strict=True)) if by is Key.user else {}
        _print_table([*spends[:SHOWN_ROWS], total], price, key=by.value, names=names, num_left_out=len(spends) - SHOWN_ROWS)
        if price is None:
            typer.echo(f"dollars are not known: no price for {manifest['settings']['llm.model']}; --prices FILE gives one")


def _price(path: Path | None, manifest: dict[str, Any]) -> Price | None:
    from toolrec.llm.prices import PriceTable
    from toolrec.simulation.manifest import stored_price

    if path is None:
        return stored_price(manifest)
    return PriceTable.read(path).price_of(manifest["settings"]["llm.model"])


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
    from toolrec.evaluation.text import printable

    saved = any(row.usage.num_stored_replies for row in rows)
    headings = [key, "calls", "requests", "prompt", "cached", "reply", "dollars", "void"]
    headings += ["stored"] if saved else []
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right", overflow="fold", no_wrap=number > 0)
    for row in rows:
        usage, void = row.usage, row.void_usage
        name = names.get(row.key, f"(number {row.key})") if isinstance(row.key, int) and key == "user" else row.key
        if row is rows[-1]:
            if num_left_out > 0:
                table.add_row(f"… and {num_left_out:,} more")
            table.add_section()
        cells = [usage.num_calls, usage.num_attempts, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens]
        void_tokens = void.prompt_tokens + void.completion_tokens
        table.add_row(
            Text(printable(str(name), limit=80)),
            *(f"{cell:,}" for cell in cells),
            dollars(price.cost_usd(usage) if price else None),
            f"{void_tokens:,}",
            *([f"{usage.num_stored_replies:,}"] if saved else []),
        )
    Console(highlight=False).print(table)
    typer.echo(
        "tokens of prompts, those of them in the endpoint's cache, of replies; void: tokens of attempts that came to nothing"
    )
