import pytest

from toolrec.evaluation.traces import EMPTY_SLOT, action_text, show_trace


@pytest.fixture
def show(users, rounds, hand):
    def shown(user: int, *, target: int | None = None, pool=True):
        row = users[users["user_index"] == user].iloc[0]
        return show_trace(row, rounds[rounds["user_index"] == user], pool=hand.pool() if pool else None, target=target)

    return shown


def test_rounds_with_thought_action_items_and_re_asks(show):
    trace = show(1, target=1)
    assert [r.action for r in trace.rounds] == ["Retrieve[none, 20]", "Rank[genre, 20]", "Finish[10 items]"]
    assert trace.rounds[0].thought == "Fruit, then."
    assert [item.is_target for item in trace.rounds[0].items] == [True, False, False]
    assert (len(trace.rounds[1].items), trace.rounds[1].num_more) == (10, 2)
    assert trace.rounds[1].reasons == ("Not accepted: <i99> is not in the pool",)
    assert trace.rounds[1].counts == "reask 1"


def test_a_hit_is_marked_with_the_tools_that_returned_it(show):
    trace = show(1, target=1)
    assert trace.position == 1
    assert trace.final[0].is_target and trace.final[0].marks == ("Retrieve[none]", "Retrieve[genre]")
    assert trace.final[0].name == "<i1> Apple & <Pear>"
    assert trace.num_candidates == 2


def test_a_miss_with_empty_slots(show):
    trace = show(2, target=5)
    assert trace.position == 0
    assert trace.final[1].name == EMPTY_SLOT
    assert trace.rounds[0].error == "unknown attribute"


def test_rounds_of_an_earlier_attempt_are_left_out(show):
    assert show(3, target=3).rounds == ()


def test_a_failed_user_is_shown_with_its_error(show):
    trace = show(4, target=4)
    assert (trace.ended_by, trace.error) == ("llm_failure", "the endpoint is down")


def test_the_opening_is_shortened_and_safe(show):
    (system, text), (user, history) = show(1).opening
    assert (system, user) == ("system", "user")
    assert text == "You are a user.\n[31mred"
    assert "29 lines left out" in history and len(history.splitlines()) == 22


def test_without_data_set_items_have_numbers_and_no_verdict(show):
    trace = show(1, pool=False)
    assert trace.final[0].name == "item number 1"
    assert trace.position is None and trace.target == ""


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (None, ""),
        (float("nan"), ""),
        ('{"name": "retrieve", "attribute": "a\\u001b[1m", "k": 5}', "Retrieve[a [1m, 5]"),
        ('{"name": "finish", "items": ["1", "2"]}', "Finish[2 items]"),
    ],
)
def test_actions_in_words(call, text):
    assert action_text(call) == text
