import json

import numpy as np
import pytest

from toolrec.evaluation.analyses.beyond_accuracy import BeyondAccuracy, training_counts
from toolrec.evaluation.analyses.groups import cold_start_groups, figures_by_group, group_values
from toolrec.evaluation.analyses.leaks import count_leaks
from toolrec.evaluation.statistics import Resampling

QUICK = Resampling(num_resamples=200)


def test_training_counts_leave_the_held_out_items_out(hand):
    # Everyone's training items are 30, 29, 28; 27 is the validation target and u the test target.
    count_I = training_counts(hand.dataset(4))
    assert count_I[[30, 29, 28]].tolist() == [4, 4, 4]
    assert count_I.sum() == 3 * 4


def test_coverage_novelty_popularity_and_diversity_by_hand(hand):
    beyond = BeyondAccuracy(hand.dataset(4), [1, 2, 3, 4], "test")
    # The pool's genre is odd or even. Lists: two odd items, one of them popular; odd and even; none; an empty slot inside.
    figures = beyond.of(np.array([[29, 1, 0], [2, 3, 0], [0, 0, 0], [4, 0, 6]]))
    assert figures["num_lists"] == 3
    assert figures["catalogue_coverage"] == pytest.approx(6 / 30)
    bits_popular, bits_new = -np.log2((4 + 1) / (4 + 1)), -np.log2((0 + 1) / (4 + 1))
    assert figures["novelty"] == pytest.approx(((bits_popular + bits_new) / 2 + bits_new + bits_new) / 3)
    # A history's items 30, 29, 28, 27 occur 4, 4, 4 and 0 times in training, a mean of 3.
    assert figures["popularity_lift"] == pytest.approx(((4 + 0) / 2 + 0 + 0) / 3 / 3 - 1)
    assert figures["diversity"] == {"genre": pytest.approx((0 + 1 + 0) / 3)}


def test_lists_that_are_all_empty_have_no_figures(hand):
    figures = BeyondAccuracy(hand.dataset(4), [1, 2], "test").of(np.zeros((2, 10), dtype=int))
    assert (figures["num_lists"], figures["novelty"], figures["diversity"]) == (0, None, {})


def test_a_history_without_items_has_no_popularity_of_its_own(hand, monkeypatch):
    dataset = hand.dataset(4)
    whole = dataset.history
    monkeypatch.setattr(dataset, "history", lambda user, split: whole(user, split)[:0] if user == 1 else whole(user, split))
    figures = BeyondAccuracy(dataset, [1, 2], "test").of(np.array([[29], [29]]))
    assert figures["popularity_lift"] == pytest.approx(4 / 3 - 1)
    assert group_values(dataset, [1], np.array([29]), "test", training_counts(dataset))["taste_breadth"].tolist() == [0]


def test_groups_are_thirds_and_equal_values_stay_together():
    value = np.array([5, 1, 1, 1, 1, 9.0])
    figures = {"surrogate": np.array([1, 0, 0, 1, 0, 1.0]), "backbone": np.zeros(6)}
    groups = figures_by_group({"history_length": value}, figures, row="surrogate", reference="backbone", resampling=QUICK)
    found = groups["history_length"]
    assert [(group["low"], group["high"], group["num_users"]) for group in found] == [(1, 1, 4), (5, 9, 2)]
    assert found[0]["means"] == {"surrogate": 1 / 4, "backbone": 0}
    assert found[1]["difference"]["mean"] == 1
    # Two users of one sign: 2 of 4 combinations are as extreme.
    assert found[1]["difference"]["p_value"] == pytest.approx(2 / 2**2, abs=0.12)


def test_what_users_are_grouped_by(hand):
    dataset = hand.dataset(4)
    values = group_values(dataset, [1, 2], np.array([29, 2]), "test", training_counts(dataset))
    assert values["history_length"].tolist() == [4, 4]
    assert values["taste_breadth"] == pytest.approx([2, 2])  # items 30, 28 are even and 29, 27 odd: two values, as often
    assert values["target_count"].tolist() == [4, 0]


def test_cold_start_users_and_items_are_groups_of_their_own(hand):
    dataset = hand.dataset(4)  # everyone has three items in training
    count_I = training_counts(dataset)
    named = cold_start_groups(dataset, [1, 2, 3], np.array([29, 2, 3]), count_I)
    figures = {"surrogate": np.array([1, 0, 1.0]), "backbone": np.zeros(3)}
    groups = figures_by_group({}, figures, row="surrogate", reference="backbone", resampling=QUICK, named=named)
    assert [(g["label"], g["num_users"]) for g in groups["cold_users"]] == [("1 to 4", 3)]
    cold, known = groups["cold_items"]
    assert (cold["label"], cold["num_users"], cold["means"]["surrogate"]) == ("never (cold items)", 2, 1 / 2)
    assert (known["num_users"], known["means"]["surrogate"]) == (1, 1)
    assert "cold_items" not in cold_start_groups(dataset, [1], np.array([29]), count_I)


def message(role: str, content: str, *, items: list[str] | None = None) -> dict:
    calls = [] if items is None else [{"function": {"name": "finish", "arguments": json.dumps({"items": items})}}]
    return {"role": role, "content": content, **({"tool_calls": calls} if calls else {})}


def leaks(hand, *rounds: tuple[list[dict], list[int]], repeats: set[int] | None = None) -> dict:
    """Of user 1, whose target is item 5, "Title 5"."""
    rows = [
        hand.round_row(1, number, messages=json.dumps(messages, ensure_ascii=False), items=items)
        for number, (messages, items) in enumerate(rounds)
    ]
    pool = hand.pool()
    pool.titles[5] = "A Title of Its Own"
    return count_leaks([hand.rounds_frame(rows)], {1: 1}, {1: [5]}, repeats=repeats or set(), pool=pool)


OPENING = [message("system", "Play a user."), message("user", "History (oldest first):\n1. <i30> Title 30")]


def test_a_target_that_a_tool_brought_is_no_leak(hand):
    shown = [
        message("assistant", "", items=None),
        message("tool", "Retrieve[none, 2] returned 2 items:\n1. <i5> A Title of Its Own"),
    ]
    found = leaks(hand, (OPENING, []), (shown, [5, 9]), ([message("user", "Not accepted: <i5>")], []))
    assert found == {"num_messages": 4, "num_leaks": 0, "num_users": 0, "users": []}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("History (oldest first):\n1. <i30> Title 30\n2. <i5> A Title of Its Own", id="id in the history"),
        pytest.param("The user will choose A Title of Its Own next.", id="title in a sentence"),
    ],
)
def test_a_target_in_a_prompt_is_a_leak(hand, text):
    found = leaks(hand, ([message("system", "Play a user."), message("user", text)], []))
    assert (found["num_leaks"], found["num_users"], found["users"]) == (1, 1, [1])


def test_a_target_in_an_observation_that_did_not_bring_it_is_a_leak(hand):
    assert leaks(hand, (OPENING, []), ([message("tool", "1. <i5> A Title of Its Own")], [9]))["num_leaks"] == 1


def test_what_the_llm_named_itself_may_be_repeated_to_it(hand):
    said = [message("assistant", "I finish.", items=["i5"]), message("user", "Not accepted: <i5> stands twice")]
    assert leaks(hand, (OPENING, []), (said, []))["num_leaks"] == 0
    other = [message("assistant", "I finish.", items=["i55"]), message("user", "Not accepted: try <i5>")]
    assert leaks(hand, (OPENING, []), (other, []))["num_leaks"] == 1


def test_another_items_line_and_a_longer_id_are_no_leak(hand):
    text = "1. <i55> A Title of Its Own, Part Two\n2. <i9> A Title of Its Own (remake)"
    assert leaks(hand, ([message("user", text)], []))["num_leaks"] == 0


def test_a_repeated_item_stands_in_the_history_rightly(hand):
    assert leaks(hand, ([message("user", "1. <i5> A Title of Its Own")], []), repeats={1})["num_leaks"] == 0


def test_rounds_of_an_attempt_that_was_lost_are_not_checked(hand):
    rows = [hand.round_row(1, 0, attempt=2, messages=json.dumps([message("user", "<i5>")]))]
    assert count_leaks([hand.rounds_frame(rows)], {1: 1}, {1: [5]}, repeats=set(), pool=hand.pool())["num_messages"] == 0
