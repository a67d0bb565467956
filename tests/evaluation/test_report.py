import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from toolrec.evaluation import FinishedRun, evaluate_run
from toolrec.evaluation.plots import plot_metrics
from toolrec.evaluation.report import render_report, write_report
from toolrec.evaluation.statistics import Resampling
from toolrec.evaluation.summary import summarise
from toolrec.evaluation.tables import facts
from toolrec.llm.prices import Price
from toolrec.recommenders import Popularity
from toolrec.records import Usage

VOID = {"br", "meta", "input", "img", "hr", "link"}


class Page(HTMLParser):
    """Collects tags, ids and references, and checks that what opens is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.ids, self.references, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href"):
                self.references.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def summary(users, dataset, baseline_lists, protocol, rounds):
    return summarise(users, dataset, baseline_lists, protocol=protocol, rounds=rounds, resampling=Resampling(num_resamples=100))


@pytest.fixture
def page_text(tmp_path, summary, users, rounds, dataset):
    path = tmp_path / "report.html"
    write_report(path, summary, users, lambda user: rounds[rounds["user_index"] == user], dataset=dataset)
    return path.read_text(encoding="utf-8")


def test_the_page_is_whole_and_needs_no_network(page_text):
    page = Page(page_text)
    assert page.open == []
    assert page.tags.count("svg") == 5
    assert "script" not in page.tags and "link" not in page.tags and "img" not in page.tags
    assert all(reference.startswith("#") for reference in page.references)
    assert not re.search(r"url\((?!#)", page_text)


def test_ids_of_the_plots_are_unique_and_every_reference_is_found(page_text):
    page = Page(page_text)
    assert len(page.ids) == len(set(page.ids))
    wanted = {reference[1:] for reference in page.references} | set(re.findall(r"url\(#([^)]+)\)", page_text))
    assert wanted <= set(page.ids)


def test_titles_and_an_llms_words_are_escaped(page_text):
    assert "<script>" not in page_text and "&lt;script&gt;alert(1)" in page_text
    assert "Apple &amp; &lt;Pear&gt;" in page_text
    assert "<b>genre</b>" not in page_text and "&lt;b&gt;genre" in page_text


def test_it_says_what_was_run_and_shows_every_row(page_text, summary):
    for words in ("surrogate (embedded rules, not an LLM)", "fusion of the tools (no LLM)", "attribute genre",
                  "the endpoint is down", "100 resamples", "mask seen", "target at position 1",
                  "Not accepted: &lt;i99&gt; is not in the pool"):  # fmt: skip
        assert words in page_text, words
    assert f"{summary['backbone']['ndcg@10']:.4f}" in page_text


def test_the_same_run_gives_the_same_bytes(summary):
    assert render_report(summary, {}) == render_report(summary, {})


def test_labels_are_drawn_as_they_are(summary):
    summary["backbone"]["label"] = "$\\frac$ <b>&x"
    assert "$\\frac$ &lt;b&gt;&amp;x" in plot_metrics(summary)


@pytest.fixture
def finished(users, rounds):
    protocol = {"split": "test", "model": "toolrec-rules-1", "seed": 3, "mask_seen": True}
    return FinishedRun(
        users=users.sample(frac=1, random_state=1),
        rounds=lambda user: rounds if user is None else rounds[rounds["user_index"] == user],
        protocol=protocol,
        void_usage={"decide": Usage(num_calls=2, prompt_tokens=5), "rank": Usage(num_calls=1)},
    )


def test_evaluate_run_writes_both_files(tmp_path, finished, dataset):
    count_I = [0.0, *range(30, 0, -1)]
    recommenders = {name: Popularity(count_I, name=name) for name in ("backbone", "genre", "popularity")}
    summary = evaluate_run(finished, dataset=dataset, recommenders=recommenders, folder=tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == summary
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "summary.json"]
    # The targets are items 1 to 4, the first four by count.
    assert summary["backbone"]["mrr@5"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert summary["fusion"]["recall@5"] == summary["attribute:genre"]["recall@5"] == 1
    assert summary["statistics"]["seed"] == 3
    assert summary["tokens"]["void"]["num_calls"] == 3
    assert summary["tokens"]["total"]["num_calls"] == 4 * 3
    assert summary["protocol"]["data_set"] == "tiny" and "planted" in summary["protocol"]["notes"][0]


def test_only_the_demo_says_that_tastes_are_planted(tmp_path, finished, hand):
    summary = evaluate_run(
        finished,
        dataset=hand.dataset(kind="movielens"),
        recommenders={"backbone": Popularity([0.0] + [1.0] * 30)},
        folder=tmp_path,
    )
    assert "notes" not in summary["protocol"]


PRICE = Price(model="m", input_usd=2.0, cached_input_usd=1.0, output_usd=4.0, checked="2026-01-31", source="the list")


def test_dollars_stand_beside_tokens_with_what_came_to_nothing_apart(tmp_path, finished, dataset):
    priced = replace(finished, price=PRICE, protocol={**finished.protocol, "model": "m"})
    summary = evaluate_run(priced, dataset=dataset, recommenders={"backbone": Popularity([0.0] + [1.0] * 30)}, folder=tmp_path)
    # Four users, three calls each of 100 prompt tokens (10 of them cached) and 7 of the reply; 5 void prompt tokens.
    total_usd = 4 * 3 * (90 * 2 + 10 * 1 + 7 * 4) / 1e6
    assert summary["tokens"]["total"]["usd"] == pytest.approx(total_usd)
    assert summary["tokens"]["void"]["usd"] == pytest.approx(5 * 2 / 1e6)
    assert dict(facts(summary))["cost"] == "$0.00263, $0.0000100 of it for attempts that came to nothing"
    assert "$0.00263" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert summary["protocol"]["price"]["checked"] == "2026-01-31"


def test_dollars_that_nobody_knows_are_not_0(tmp_path, finished, dataset):
    unknown = replace(finished, protocol={**finished.protocol, "model": "m"})
    summary = evaluate_run(unknown, dataset=dataset, recommenders={"backbone": Popularity([0.0] + [1.0] * 30)}, folder=tmp_path)
    assert summary["tokens"]["total"]["usd"] is None
    assert dict(facts(summary))["cost"] == "not known: no price for m; --prices FILE gives one"
