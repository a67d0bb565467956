"""Price files: what they must say, and what tokens cost by them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolrec.errors import ConfigError
from toolrec.llm.prices import PriceTable
from toolrec.records import Usage

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "prices.yaml"
GIVEN = {"input_usd": 2, "cached_input_usd": 0.5, "output_usd": 8, "checked": "2026-01-31", "source": "the list"}


def table(tmp_path: Path, **changed: object) -> PriceTable:
    entry = {name: value for name, value in {**GIVEN, **changed}.items() if value is not None}
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"models": {"m": entry}}))
    return PriceTable.read(path)


def test_cached_tokens_and_replies_have_prices_of_their_own(tmp_path: Path):
    usage = Usage(num_calls=1, prompt_tokens=1_000, cached_tokens=400, completion_tokens=10)
    assert table(tmp_path).cost_usd("m", usage) == pytest.approx((600 * 2 + 400 * 0.5 + 10 * 8) / 1e6)


def test_without_a_price_of_their_own_cached_tokens_cost_what_others_cost(tmp_path: Path):
    usage = Usage(prompt_tokens=1_000, cached_tokens=400)
    assert table(tmp_path, cached_input_usd=None).cost_usd("m", usage) == pytest.approx(1_000 * 2 / 1e6)


def test_stored_replies_cost_nothing(tmp_path: Path):
    assert table(tmp_path).cost_usd("m", Usage(num_calls=1, num_stored_replies=1, saved_prompt_tokens=10**6)) == 0


def test_an_unknown_model_has_no_known_cost(tmp_path: Path):
    assert table(tmp_path).cost_usd("another", Usage(prompt_tokens=1)) is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"input_usd": -1}, "input_usd must be a number of dollars for a million tokens; got: -1"),
        ({"output_usd": "cheap"}, "output_usd must be a number of dollars"),
        ({"output_usd": float("nan")}, "output_usd must be a number of dollars"),
        ({"input_usd": True}, "input_usd must be a number of dollars"),
        ({"input_usd": int("9" * 400)}, "input_usd must be a number of dollars"),
        ({"output_usd": None}, "the price of m lacks output_usd"),
        ({"checked": None}, "does not say when it was looked up"),
        ({"source": " "}, "does not say where it was looked up"),
        ({"output": 3}, "unknown field; got: output"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_reason(tmp_path: Path, changed: dict[str, object], reason: str):
    with pytest.raises(ConfigError) as caught:
        table(tmp_path, **changed)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("models: [", "cannot read"),
        ("- m", "no mapping `models`"),
        ("models: {m: 3}", "not a mapping"),
        ("models: {m: {checked: 2026-02-30}}", "cannot read"),
        (f"models: {{m: {{input_usd: {'9' * 5000}}}}}", "cannot read"),
        (None, "cannot read"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, content: str | None, reason: str):
    path = tmp_path / "prices.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=reason):
        PriceTable.read(path)


def test_the_example_can_be_read_and_its_checksum_tells_a_change(tmp_path: Path):
    example = PriceTable.read(EXAMPLE)
    assert example.models == ("my-model", "toolrec-rules-1")
    price = example.price_of("my-model")
    assert price is not None and (price.checked, price.output_usd) == ("2026-01-31", 4.0)
    changed = tmp_path / "prices.yaml"
    changed.write_text(EXAMPLE.read_text().replace("4.00", "4.01", 1))
    assert PriceTable.read(changed).checksum != example.checksum
