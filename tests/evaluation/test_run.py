import json
from dataclasses import replace

import pandas as pd
import pytest

from toolrec.evaluation import FinishedRun, evaluate_run
from toolrec.evaluation.plots import plot_metrics
from toolrec.evaluation.run import left_out_fusions
from toolrec.evaluation.statistics import Resampling
from toolrec.evaluation.summary import summarise
from toolrec.evaluation.tables import facts
from toolrec.llm.prices import Price
from toolrec.recommenders import Popularity
from toolrec.recommenders.fusion.learned import LearnedFusions
from toolrec.records import Usage


@pytest.fixture
def summary(users, dataset, baseline_lists, protocol, rounds):
    return summarise(users, dataset, baseline_lists, protocol=protocol, rounds=rounds, resampling=Resampling(num_resamples=100))


def test_labels_are_drawn_as_they_are(summary):
    summary["backbone"]["label"] = "$\\frac$ <b>&x"
    assert "$\\frac$ &lt;b&gt;&amp;x" in plot_metrics(summary).svg


@pytest.fixture
def finished(users, rounds):
    protocol = {"split": "test", "model": "toolrec-rules-1", "seed": 3, "mask_seen": True}
    return FinishedRun(
        users=users.sample(frac=1, random_state=1),
        rounds=rounds,
        protocol=protocol,
        void_usage={"decide": Usage(num_calls=2, prompt_tokens=5), "rank": Usage(num_calls=1)},
    )


def test_evaluate_run_writes_its_files(tmp_path, finished, dataset):
    count_I = [0.0, *range(30, 0, -1)]
    recommenders = {name: Popularity(count_I, name=name) for name in ("backbone", "genre", "popularity")}
    summary = evaluate_run(finished, dataset=dataset, recommenders=recommenders, folder=tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == summary
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists.parquet", "summary.json"]
    lists = pd.read_parquet(tmp_path / "lists.parquet")
    backbone = lists[lists["recommender"] == "backbone"]
    assert backbone["target"].tolist() == backbone["position"].tolist() == [1, 2, 3, 4]
    for name, of_row in lists.groupby("recommender"):
        assert of_row["ndcg@10"].mean() == pytest.approx(summary[str(name)]["ndcg@10"])
    # The targets are items 1 to 4, the first four by count.
    assert summary["backbone"]["mrr@5"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert summary["fusion"]["recall@5"] == summary["attribute:genre"]["recall@5"] == 1
    assert summary["statistics"]["seed"] == 3
    assert summary["tokens"]["void"]["num_calls"] == 3
    assert summary["tokens"]["total"]["num_calls"] == 4 * 3
    assert summary["protocol"]["data_set"] == "tiny" and "planted" in summary["protocol"]["notes"][0]


@pytest.mark.parametrize("split", ["test", "valid"])
def test_fusions_are_left_out_on_the_targets_that_they_were_fitted_on(tmp_path, finished, dataset, split):
    popular = Popularity([0.0] + [1.0] * 30)
    summary = evaluate_run(
        replace(finished, protocol={**finished.protocol, "split": split}, notes=("a note of the run",)),
        dataset=dataset,
        recommenders={"backbone": popular},
        folder=tmp_path,
        fusions=LearnedFusions(by_name={"ranker": popular}, strongest="ranker"),
    )
    notes = summary["protocol"]["notes"]
    assert ("ranker" in summary) == (split == "test")
    assert summary["protocol"].get("strongest_fusion") == ("ranker" if split == "test" else None)
    assert any("fitted on these validation targets" in note for note in notes) == (split == "valid")
    assert "planted" in notes[0] and "a note of the run" in notes


def test_a_run_without_one_of_the_fused_tools_says_so():
    manifest = {"fusions": {"tools": ["backbone", "genre", "release_year"]}}
    [note] = left_out_fusions(manifest, {"backbone": 1, "genre": 1, "popularity": 1})
    assert "fitted with release_year" in note
    assert not list(left_out_fusions(manifest, dict.fromkeys(manifest["fusions"]["tools"])))
    assert not list(left_out_fusions({}, {}))


def test_only_the_demo_says_that_tastes_are_planted(tmp_path, finished, hand):
    summary = evaluate_run(
        finished,
        dataset=hand.dataset(kind="movielens"),
        recommenders={"backbone": Popularity([0.0] + [1.0] * 30)},
        folder=tmp_path,
    )
    assert summary["protocol"]["notes"] == ["users: 4 only (figures over so few users say nothing)"]


PRICE = Price(model="m", input_usd=2.0, cached_input_usd=1.0, output_usd=4.0, checked="2026-01-31", source="the list")


def test_dollars_stand_beside_tokens_with_what_came_to_nothing_apart(tmp_path, finished, dataset):
    priced = replace(finished, price=PRICE, protocol={**finished.protocol, "model": "m"})
    summary = evaluate_run(priced, dataset=dataset, recommenders={"backbone": Popularity([0.0] + [1.0] * 30)}, folder=tmp_path)
    # Four users, three calls each of 100 prompt tokens (10 of them cached) and 7 of the reply; 5 void prompt tokens.
    total_usd = 4 * 3 * (90 * 2 + 10 * 1 + 7 * 4) / 1e6
    assert summary["tokens"]["total"]["usd"] == pytest.approx(total_usd)
    assert summary["tokens"]["void"]["usd"] == pytest.approx(5 * 2 / 1e6)
    assert dict(facts(summary))["cost"] == "$0.00263, $0.0000100 of it for attempts that came to nothing"
    assert summary["protocol"]["price"]["checked"] == "2026-01-31"


def test_dollars_that_nobody_knows_are_not_0(tmp_path, finished, dataset):
    unknown = replace(finished, protocol={**finished.protocol, "model": "m"})
    summary = evaluate_run(unknown, dataset=dataset, recommenders={"backbone": Popularity([0.0] + [1.0] * 30)}, folder=tmp_path)
    assert summary["tokens"]["total"]["usd"] is None
    assert dict(facts(summary))["cost"] == "not known: no price for m; --prices FILE gives one"
