import json
import math

import numpy as np
import pandas as pd
import pytest

from toolrec.errors import RunFolderError
from toolrec.evaluation.behaviour import wall_s_of
from toolrec.evaluation.statistics import Resampling
from toolrec.evaluation.summary import BESIDE_ROWS, rows_of, summarise
from toolrec.evaluation.tables import table_text

QUICK = Resampling(num_resamples=200)


@pytest.fixture
def summary(users, dataset, baseline_lists, protocol, rounds):
    return summarise(users, dataset, baseline_lists, protocol=protocol, rounds=rounds, resampling=QUICK)


def test_rows_in_the_order_of_the_table(summary):
    assert list(rows_of(summary)) == [
        "surrogate", "surrogate_completed", "backbone", "attribute:genre", "fusion", "popularity",
    ]  # fmt: skip
    assert set(summary) == set(rows_of(summary)) | set(BESIDE_ROWS)


def test_all_users_count_and_a_failed_one_is_a_miss(summary):
    # Hits at 1 and 3, a miss, and a failure whose list held the target.
    row = summary["surrogate"]
    assert row["num_users"] == 4
    assert row["recall@10"] == pytest.approx((1 + 1 + 0 + 0) / 4)
    assert row["mrr@5"] == pytest.approx((1 / 1 + 1 / 3) / 4)
    assert row["ndcg@10"] == pytest.approx((1 + 1 / math.log2(4)) / 4)


def test_finished_users_leave_the_failure_out_of_every_row(summary):
    finished = summary["surrogate"]["finished_users"]
    assert finished["num_users"] == 3
    assert finished["recall@10"] == pytest.approx((1 + 1 + 0) / 3)
    assert summary["backbone"]["finished_users"]["recall@10"] == pytest.approx((1 + 1 + 0) / 3)
    assert summary["backbone"]["finished_users"]["recall@20"] == pytest.approx(1)


def test_the_completed_list_has_no_empty_slots(summary):
    # User 2's target moves up from 3 to 2.
    assert summary["surrogate_completed"]["mrr@10"] == pytest.approx((1 / 1 + 1 / 2) / 4)


def test_a_list_of_ten_has_no_figure_at_twenty(summary):
    for name in ("surrogate", "surrogate_completed"):
        row = summary[name]
        assert row["recall@20"] is row["ndcg@20"] is row["mrr@20"] is None
        assert "recall@20" not in row["intervals"] and "recall@20" not in row["difference_to_backbone"]
    assert summary["backbone"]["recall@20"] == pytest.approx(3 / 4)
    assert summary["backbone"]["recall@10"] == pytest.approx(2 / 4)
    assert summary["fusion"]["difference_to_backbone"]["recall@20"]["mean"] == pytest.approx(4 / 4 - 3 / 4)


def test_intervals_hold_the_figure_and_differences_are_paired(summary):
    for row in rows_of(summary).values():
        for metric, (low, high) in row["intervals"].items():
            assert low <= row[metric] + 1e-12 and row[metric] <= high + 1e-12
    difference = summary["surrogate"]["difference_to_backbone"]["mrr@10"]
    assert difference["mean"] == pytest.approx(((1 - 1) + (1 / 3 - 1 / 2) + 0 + 0) / 4)
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert summary["attribute:genre"]["difference_to_fusion"]["mrr@10"]["mean"] == pytest.approx(1 - 1 / 6)
    assert summary["attribute:genre"]["difference_to_fusion"]["mrr@10"]["p_value"] == pytest.approx(2 / 2**4)
    assert summary["backbone"]["difference_to_backbone"] == {}


def test_equal_rows_have_no_difference(users, dataset, baseline_lists, protocol):
    baseline_lists["fusion"] = baseline_lists["backbone"]
    fusion = summarise(users, dataset, baseline_lists, protocol=protocol, resampling=QUICK)["fusion"]
    difference = fusion["difference_to_backbone"]["ndcg@10"]
    assert (difference["mean"], difference["p_value"], difference["p_value_holm"]) == (0, 1, 1)
    assert (difference["num_better"], difference["num_worse"], difference["effect_size"]) == (0, 0, None)
    # None of four users differs: the true difference can still be far from 0.
    assert difference["low"] == pytest.approx(-difference["high"]) and difference["high"] > 0.4


def test_counts_tokens_behaviour_and_speed(summary):
    counts = summary["counts"]
    assert (counts["users"], counts["finished"], counts["failed"]) == (4, 3, 1)
    assert counts["ended_by"] == {"finish": 3, "llm_failure": 1}
    assert counts["failures"] == {"llm_failure": 1}
    assert counts["failure_kinds"] == {"unavailable": 1}
    assert counts["errors"] == {"the endpoint is down": 1}
    assert counts["events"] == {"reask": 2}
    behaviour = summary["behaviour"]
    assert behaviour["rounds"] == {"mean": 3, "total": 12, "distribution": {"3": 4}}
    assert behaviour["llm_calls"]["mean"] == 3
    assert behaviour["reasks"] == {"mean": 2 / 4, "total": 2, "distribution": {"0": 3, "2": 1}}
    assert behaviour["final_list_items"]["distribution"] == {"1": 1, "2": 1, "3": 1, "10": 1}
    assert behaviour["tool_calls_by_mark"] == {
        "calls": {"Rank[genre]": 1, "Retrieve[<b>genre</b>]": 1, "Retrieve[none]": 1},
        "errors": {"Retrieve[<b>genre</b>]": 1},
    }
    assert summary["tokens"]["decide"] == summary["tokens"]["total"]
    assert summary["tokens"]["total"]["prompt_tokens"] == 4 * 3 * 100
    # From 101 (the first start) to 114 (the last end).
    assert summary["wall_s"] == pytest.approx(13)
    assert summary["users_per_s"] == pytest.approx(4 / 13)


def test_tokens_are_summed_by_purpose(hand, dataset, baseline_lists, protocol):
    usage = [hand.usage("decide", 2), hand.usage("rank", 1)]
    users = hand.users_frame([hand.user_row(user, [], usage=usage) for user in (1, 2, 3, 4)])
    tokens = summarise(users, dataset, baseline_lists, protocol=protocol, resampling=QUICK)["tokens"]
    assert {purpose: part["num_calls"] for purpose, part in tokens.items()} == {"decide": 8, "rank": 4, "total": 12}


def test_a_failed_users_hit_is_no_hit_of_the_surrogate(summary):
    assert summary["hits"]["surrogate"]["num_hits"] == 2
    assert summary["hits"]["ceiling"]["num_hits"] == 3


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ("toolrec-rules-1", "surrogate (embedded rules, not an LLM)"),
        ("gpt-next", "surrogate (gpt-next)"),
        ("", "surrogate"),
    ],
)
def test_the_label_says_what_played_the_user(users, dataset, baseline_lists, protocol, model, label):
    protocol["model"] = model
    assert summarise(users, dataset, baseline_lists, protocol=protocol, resampling=QUICK)["surrogate"]["label"] == label


def test_json_holds_no_nan_even_for_one_user_that_failed(hand, protocol):
    users = hand.users_frame([hand.user_row(1, [], ended_by="budget", error="out of rounds", started_s=5.0, ended_s=5.0)])
    summary = summarise(users, hand.dataset(1), {"backbone": np.zeros((1, 20), dtype=int)}, protocol=protocol)
    text = json.dumps(summary, allow_nan=False)
    assert json.loads(text)["surrogate"]["finished_users"]["recall@10"] is None
    assert summary["users_per_s"] is None
    assert summary["surrogate"]["intervals"]["recall@10"] is None
    assert summary["surrogate"]["difference_to_backbone"]["recall@10"]["p_value"] is None


def test_same_run_same_summary(users, dataset, baseline_lists, protocol, summary, rounds):
    again = summarise(users, dataset, baseline_lists, protocol=protocol, rounds=rounds, resampling=QUICK)
    assert json.dumps(again) == json.dumps(summary)


def test_other_targets_change_figures_and_nothing_else(users, hand, baseline_lists, protocol, summary, rounds):
    permuted = hand.dataset(targets=[2, 1, 4, 3])
    other = summarise(users, permuted, baseline_lists, protocol=protocol, rounds=rounds, resampling=QUICK)
    for key in set(BESIDE_ROWS) - {"hits", "groups"}:
        assert other[key] == summary[key], key
    assert other["hits"]["equal_lists"] == summary["hits"]["equal_lists"]
    assert other["surrogate"]["recall@10"] == 0


def test_no_user_and_a_user_twice_are_refused(users, dataset, baseline_lists, protocol):
    with pytest.raises(RunFolderError, match="no user"):
        summarise(users.iloc[:0], dataset, {}, protocol=protocol)
    with pytest.raises(RunFolderError, match="twice"):
        summarise(users.assign(user_index=1), dataset, baseline_lists, protocol=protocol)
    with pytest.raises(RunFolderError, match="another number of users"):
        summarise(users, dataset, {"backbone": np.zeros((3, 20))}, protocol=protocol)


def test_the_rest_between_a_kill_and_its_resume_is_not_counted():
    # Two users at once for 3 s, an hour of rest, one user for 2 s; the first of all started earliest and ended last.
    times = pd.DataFrame({"started_s": [3600.0, 0.0, 1.0], "ended_s": [3602.0, 2.5, 3.0]})
    assert wall_s_of(times) == 3.0 + 2.0
    assert wall_s_of(times[1:]) == 3.0


def test_the_strongest_fusion_is_compared_to_beside_reciprocal_ranks(users, dataset, baseline_lists, protocol):
    baseline_lists["ranker"] = baseline_lists["attribute:genre"]
    summary = summarise(users, dataset, baseline_lists, protocol={**protocol, "strongest_fusion": "ranker"}, resampling=QUICK)
    assert list(rows_of(summary)) == [
        "surrogate", "surrogate_completed", "backbone", "attribute:genre", "fusion", "ranker", "popularity",
    ]  # fmt: skip
    assert summary["ranker"]["label"] == "ranker with neighbours (no LLM)"
    assert summary["fusion"]["difference_to_ranker"]["mrr@10"]["mean"] == pytest.approx(1 / 6 - 1)
    assert summary["ranker"]["difference_to_fusion"]["mrr@10"]["mean"] == pytest.approx(1 - 1 / 6)
    shown = table_text(summary)
    assert "to the ranker" in shown and "to the fusion" not in shown


def test_holm_is_over_the_table_and_counts_each_pair_of_rows_once(summary):
    rows = rows_of(summary)
    references = ("backbone", "fusion")
    pairs = {frozenset((name, reference)) for name in rows for reference in references if name != reference}
    assert len(pairs) == 5 + 4
    p_values = {
        frozenset((name, reference)): row[f"difference_to_{reference}"]["ndcg@10"]
        for name, row in rows.items()
        for reference in references
        if name != reference
    }
    smallest = min(p_values.values(), key=lambda difference: difference["p_value"])
    assert smallest["p_value_holm"] == pytest.approx(min(1, len(pairs) * smallest["p_value"]))
    both_ways = rows["fusion"]["difference_to_backbone"]["ndcg@10"], rows["backbone"]["difference_to_fusion"]["ndcg@10"]
    assert both_ways[0]["p_value_holm"] == both_ways[1]["p_value_holm"]


def test_effect_sizes_and_who_differs(summary):
    difference = summary["surrogate"]["difference_to_backbone"]["mrr@10"]
    values = np.array([1 - 1, 1 / 3 - 1 / 2, 0, 0])
    assert (difference["num_better"], difference["num_worse"]) == (0, 1)
    assert difference["effect_size"] == pytest.approx(values.mean() / values.std())


def test_targets_that_masking_keeps_off_every_list(users, hand, baseline_lists, protocol):
    # Users 2 and 4 come back to item 28, which everyone's history has.
    dataset = hand.dataset(targets=[1, 28, 3, 28])
    summary = summarise(users, dataset, baseline_lists, protocol=protocol, resampling=QUICK)
    assert summary["hits"]["num_unreachable_targets"] == 2
    assert summary["protocol"]["unreachable_targets"].startswith("2 of 4")
    assert "unreachable targets 2 of 4" in " ".join(table_text(summary, full=False).split())
    unmasked = summarise(users, dataset, baseline_lists, protocol={**protocol, "mask_seen": False}, resampling=QUICK)
    assert unmasked["hits"]["num_unreachable_targets"] == 0
    assert "unreachable_targets" not in unmasked["protocol"]


def test_few_users_who_differ_and_small_differences_are_said(summary):
    text = " ".join(table_text(summary, full=False).split())
    assert "fewer than 20 users differ from the backbone in NDCG@10: surrogate 1," in text
    assert "one training" in text
    assert "found 80% of the time if it is at least" in text
