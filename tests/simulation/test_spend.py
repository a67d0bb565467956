"""The ledger of a run folder written by hand, and `toolrec spend` over it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from toolrec.cli import run_command
from toolrec.records import Trace, Usage
from toolrec.runs.folder import RunFolder
from toolrec.runs.ledger import ledger_of, spend_by, total_usage
from toolrec.runs.rows import trace_rows

PRICE = {
    "model": "m", "input_usd": 10.0, "cached_input_usd": 10.0, "output_usd": 10.0, "checked": "2026-01-31", "source": "s",
}  # fmt: skip


def entry(user: int, attempt: int, number: int, tool: str, purpose: str, prompt_tokens: int, **used: int) -> dict[str, Any]:
    where = {"user_index": user, "attempt": attempt, "round": number, "tool": tool, "purpose": purpose}
    return {**where, **asdict(Usage(num_calls=1, num_attempts=1, prompt_tokens=prompt_tokens, **used))}


JOURNAL = [
    entry(1, 1, 1, "Retrieve[genre]", "decide", 1),
    entry(1, 1, 2, "Rank[mood]", "decide", 2),
    entry(1, 1, 2, "Rank[mood]", "rank", 4, cached_tokens=3),
    entry(2, 1, 1, "Retrieve[genre]", "decide", 8),  # done again under attempt 2: void
    entry(2, 2, 1, "Retrieve[none]", "decide", 16),
    entry(2, 2, 2, "", "decide", 32),
    entry(3, 1, 1, "Retrieve[genre]", "decide", 64),  # never committed: void
]
USERS = pd.DataFrame({"user_index": [1, 2], "num_rounds": [2, 2]})


@pytest.mark.parametrize(
    ("key", "tokens"),
    [
        ("user", {3: (64, 64), 2: (8 + 16 + 32, 8), 1: (1 + 2 + 4, 0)}),
        ("round", {1: (1 + 8 + 16 + 64, 8 + 64), 2: (2 + 4 + 32, 0)}),
        ("tool", {"Retrieve[genre]": (1 + 8 + 64, 8 + 64), "none": (32, 0), "Retrieve[none]": (16, 0), "Rank[mood]": (2 + 4, 0)}),
        ("purpose", {"decide": (1 + 2 + 8 + 16 + 32 + 64, 8 + 64), "rank": (4, 0)}),
    ],
)
def test_the_ledger_is_summed_by_each_key(key: Any, tokens: dict[Any, tuple[int, int]]):
    sums = spend_by(ledger_of(JOURNAL, USERS), key)
    assert [spend.key for spend in sums] == list(tokens)
    assert {spend.key: (spend.usage.prompt_tokens, spend.void_usage.prompt_tokens) for spend in sums} == tokens


def test_every_sum_is_the_same_total():
    ledger = ledger_of(JOURNAL, USERS)
    for key in ("user", "round", "tool", "purpose"):
        assert sum((spend.usage for spend in spend_by(ledger, key)), Usage()) == total_usage(ledger)
    assert total_usage(ledger) == Usage(num_calls=7, num_attempts=7, prompt_tokens=127, cached_tokens=3)


def test_an_empty_journal_is_an_empty_ledger():
    ledger = ledger_of([], USERS)
    assert total_usage(ledger) == Usage()
    assert spend_by(ledger, "tool") == []


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with one committed user, spend of two, and a price."""
    path = tmp_path / "run"
    manifest = {
        "schema_version": 1,
        "resume_key": "k",
        "settings": {"llm.model": "m"},
        "prices": {"checksum": "c", "price": PRICE},
    }
    folder = RunFolder.create(path, manifest)
    trace = Trace(
        user_index=1, user_id="Ann [b]", attempt=1, opening=(), rounds=(), final_items=(), completed_items=(), candidates=(),
        ended_by="finish", error=None, usage={}, counts={}, started_s=0.0, ended_s=1.0,
    )  # fmt: skip
    user, rounds = trace_rows(trace)
    folder.commit([{**user, "num_rounds": 2}], rounds)
    folder.journal([row for row in JOURNAL if row["user_index"] != 2])
    folder.close()
    return path


def test_the_command_prints_the_ledger_with_dollars(run: Path, capsys: pytest.CaptureFixture[str]):
    assert run_command(["spend", str(run), "--by", "user"]) == 0
    shown = capsys.readouterr().out
    assert "Ann [b]" in shown and "(number 3)" in shown
    assert "$0.000710" in shown  # (1 + 2 + 4 + 64) * 10 / 1e6


def test_as_json_every_row_has_its_dollars(run: Path, capsys: pytest.CaptureFixture[str]):
    assert run_command(["spend", str(run), "--by", "tool", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    rows = {row["key"]: row for row in said["rows"]}
    assert rows["Retrieve[genre]"]["usd"] == pytest.approx((1 + 64) * 10 / 1e6)
    assert rows["Retrieve[genre]"]["void"]["usd"] == pytest.approx(64 * 10 / 1e6)
    assert said["total"]["prompt_tokens"] == 71 and said["price"]["checked"] == "2026-01-31"


def test_without_a_price_dollars_are_not_known_and_not_0(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    prices = tmp_path / "prices.yaml"
    prices.write_text("models: {}")
    assert run_command(["spend", str(run), "--prices", str(prices)]) == 0
    shown = capsys.readouterr().out
    assert "not known" in shown and "no price for m" in shown and "$" not in shown
