import pytest

from toolrec.evaluation.traces import EMPTY_SLOT, _unwrapped, action_text, show_trace
from toolrec.records import ToolCall


@pytest.fixture
def show(users, rounds, hand):
    def shown(user: int, *targets: int, pool=True):
        return show_trace(hand.trace_reader(users, rounds)(user), pool=hand.pool() if pool else None, targets=targets)

    return shown


def test_rounds_with_thought_action_items_and_re_asks(show):
    trace = show(1, 1)
    assert [r.action for r in trace.rounds] == ["Retrieve[none, 20]", "Rank[genre, 20]", "Finish[10 items]"]
    assert trace.rounds[0].thought == "Fruit, then."
    assert [item.is_target for item in trace.rounds[0].items] == [True, False, False]
    assert (len(trace.rounds[1].items), trace.rounds[1].num_more) == (10, 2)
    assert trace.rounds[1].reasons == ("Not accepted: <i99> is not in the pool",)
    assert trace.rounds[1].counts == "reask 1"


def test_a_hit_is_marked_with_the_tools_that_returned_it(show):
    trace = show(1, 1)
    assert [(target.position, target.marks) for target in trace.targets] == [(1, ("Retrieve[none]", "Retrieve[genre]"))]
    assert trace.final[0].is_target and trace.final[0].marks == ("Retrieve[none]", "Retrieve[genre]")
    assert trace.final[0].name == "<i1> Apple & <Pear>"
    assert trace.num_candidates == 2


def test_a_miss_with_empty_slots(show):
    trace = show(2, 5)
    assert [target.position for target in trace.targets] == [0]
    assert trace.final[1].name == EMPTY_SLOT
    assert trace.rounds[0].error == "unknown attribute"


def test_rounds_of_an_earlier_attempt_are_left_out(show):
    assert show(3, 3).rounds == ()


def test_a_failed_user_is_shown_with_its_error(show):
    trace = show(4, 4)
    assert (trace.ended_by, trace.error) == ("llm_failure", "the endpoint is down")


def test_the_opening_is_shortened_and_safe(show):
    (system, text), (user, history) = show(1).opening
    assert (system, user) == ("system", "user")
    assert text == "You are a user.\n[31mred"
    assert "29 lines left out" in history and len(history.splitlines()) == 22


def test_without_data_set_items_have_numbers_and_no_verdict(show):
    trace = show(1, pool=False)
    assert trace.final[0].name == "item number 1"
    assert trace.targets == ()


def test_each_of_several_targets_is_told(show):
    trace = show(1, 1, 29)
    assert [(target.position, target.marks != ()) for target in trace.targets] == [(1, True), (0, False)]
    assert [item.position for item in trace.final if item.is_target] == [1]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (None, ""),
        (ToolCall(name="retrieve", attribute="a\x1b[1m", k=5), "Retrieve[a [1m, 5]"),
        (ToolCall(name="finish", items=("1", "2")), "Finish[2 items]"),
    ],
)
def test_actions_in_words(call, text):
    assert action_text(call) == text


def test_a_wrapped_prompt_is_wrapped_anew_and_its_lists_stay():
    first = "You play one particular user of a recommender. From what this user has watched you work out what the user"
    lines = [first, "would choose next.", "", "- Retrieve[attribute, K]: " + "x" * 80, "<i1> a title", "Thought: one."]
    assert _unwrapped(lines) == [f"{first} would choose next.", *lines[2:]]


def test_a_wrapped_entry_of_a_list_is_joined_and_what_is_listed_below_it_is_not():
    lines = [
        "- Retrieve[attribute, K]: " + "the films " * 8,
        "  as far as the attribute goes:",
        "  none: the recommender",
        "  genre",
    ]
    assert _unwrapped(lines) == [f"{lines[0]} as far as the attribute goes:", *lines[2:]]


@pytest.mark.parametrize(
    "lines",
    [
        ["  genre: " + "drama, " * 12, "  mood"],
        ["As far as the attribute goes, with the " + "films " * 8, "  none: the recommender"],
        ["  - genre: " + "drama, " * 12, "  mood"],
    ],
)
def test_an_indented_line_is_joined_to_an_entry_that_stands_further_out_only(lines):
    assert _unwrapped(lines) == lines


def test_an_entry_that_is_wrapped_within_a_list_is_joined():
    first = "  - genre: " + "drama, " * 12
    assert _unwrapped([first, "    mood", "and so on"]) == [f"{first} mood", "and so on"]
