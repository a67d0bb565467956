import io

import pytest
from rich.console import Console

from toolrec.evaluation import print_summary
from toolrec.evaluation.statistics import Resampling
from toolrec.evaluation.summary import summarise
from toolrec.evaluation.tables import best_rows, dollars, protocol_entries, shown_p_value, table_text


@pytest.fixture
def summary(users, dataset, baseline_lists, protocol, rounds):
    protocol["notes"] = ["tastes are planted in this data"]
    return summarise(users, dataset, baseline_lists, protocol=protocol, rounds=rounds, resampling=Resampling(num_resamples=100))


def test_the_short_form_is_one_screen(summary):
    lines = table_text(summary, full=False).splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 80
    assert sum("surrogate (embedded" in line for line in lines) == 1, "the row says what played the user"


@pytest.mark.parametrize("width", [80, 120, 200])
def test_every_row_fits_the_width(summary, width):
    text = table_text(summary, width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "\x1b" not in text
    for words in ("not an LLM)", "attribute genre", "popularity", "ceiling", "tastes are planted", "failures: llm_failure 1"):
        assert words in text, words


def test_all_figures_survive_the_narrow_width(summary):
    lines = table_text(summary, width=80).splitlines()
    backbone = next(line for line in lines if line.strip().startswith("backbone"))
    assert "0.5000 " in backbone and f"{(1 + 1 / 2) / 4:.4f}" in backbone
    surrogate = [line.split() for line in lines if line.strip().startswith("surrogate")]
    assert any(words[-3:] == ["–", "–", "–"] for words in surrogate)


def test_the_best_of_a_column_is_marked(summary):
    line = next(line for line in table_text(summary, width=120).splitlines() if "attribute genre" in line)
    assert line.count("1.0000*") == 3


def test_a_fusion_below_its_best_tool_is_marked(summary):
    for full in (False, True):
        text = " ".join(table_text(summary, width=120, full=full).split())
        assert "fusion of the tools †" in text and "† worse in NDCG@10 than the best tool alone (genre 1.0000): fusion" in text
    summary["fusion"]["ndcg@10"] = 1.0
    assert "†" not in table_text(summary, width=120)


def test_print_to_something_that_is_no_terminal(summary):
    out = io.StringIO()
    print_summary(summary, Console(file=out, width=80))
    assert "NDCG@10" in out.getvalue() and "\x1b" not in out.getvalue()


def test_ties_are_all_marked_and_zero_is_never_best():
    assert best_rows({"a": {"m": 0.5}, "b": {"m": 0.50001}, "c": {"m": None}}, "m") == {"a", "b"}
    assert best_rows({"a": {"m": 0.0}}, "m") == set()


@pytest.mark.parametrize(
    ("amount_usd", "text"),
    [(None, "not known"), (0, "$0.00"), (0.00007, "$0.0000700"), (0.5, "$0.500"), (1234.5, "$1,234.50")],
)
def test_dollars_that_are_not_known_are_not_0(amount_usd, text):
    assert dollars(amount_usd) == text


@pytest.mark.parametrize(("p", "text"), [(None, "–"), (0.0002, "<.001"), (0.0314, ".031"), (1.0, "1.000")])
def test_p_values(p, text):
    assert shown_p_value(p) == text


def test_markup_and_control_characters_are_shown_not_obeyed(summary):
    summary["backbone"]["label"] = "[bold]evil[/bold] \x1b[31mred"
    summary["protocol"]["model"] = "[link=http://x]\x07x[/link]"
    text = table_text(summary, width=120)
    assert "[bold]evil[/bold] [31mred" in text
    assert "[link=http://x] x[/link]" in text


def test_protocol_in_words():
    entries = protocol_entries(
        {"mask_seen": True, "rounds": 7, "item_filter": {"min_rating": None, "k": 5}, "x": None, "notes": ["n"]}
    )
    assert entries == [("mask seen", "yes"), ("rounds", "7"), ("item filter", "k 5")]
