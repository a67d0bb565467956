"""Replies as LLMs write them: an action or the reason why not, never anything else."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toolrec.errors import ReplyError
from toolrec.records import ToolCall
from toolrec.surrogate.parsing import (
    cut_observation,
    parse_plain_reply,
    parse_text_reply,
    parse_tool_call,
    thought_of,
    valid_arguments,
)

NAMES = frozenset(("retrieve", "rank", "finish"))


@pytest.mark.parametrize(
    ("text", "name", "attribute", "k"),
    [
        ("Thought 1: x\nAction 1: Retrieve[genre, 20]", "retrieve", "genre", 20),
        ("Action: retrieve[genre,20]", "retrieve", "genre", 20),
        ("action 12 : RETRIEVE[ genre , 20 ]", "retrieve", "genre", 20),
        ("**Action 1:** Retrieve[genre, 20]", "retrieve", "genre", 20),
        ("Action 1: **Retrieve[genre, 20]**", "retrieve", "genre", 20),
        ("Action 1: `Retrieve[genre, 20]`", "retrieve", "genre", 20),
        ("Action 1:\nRetrieve[genre, 20]", "retrieve", "genre", 20),
        ("### Action 1: Retrieve[genre, 20]", "retrieve", "genre", 20),
        ("Retrieve(genre, 20)", "retrieve", "genre", 20),
        ("I would say Retrieve[genre, 20] tells most.", "retrieve", "genre", 20),
        ("Action 1: Retrieve[None, 10]", "retrieve", None, 10),
        ("Action 1: Retrieve[null, 10]", "retrieve", None, 10),
        ("Action 1: Retrieve[genre]", "retrieve", "genre", None),
        ("Action 1: Retrieve[15]", "retrieve", None, 15),
        ("Action 1: Retrieve[]", "retrieve", None, None),
        ("Action 1: Retrieve[genre, ]", "retrieve", "genre", None),
        ("Action 1: Retrieve[genre, 20", "retrieve", "genre", 20),
        ("Action 1: Retrieve[genre, 20]. Then I rank.\nAction 2: Rank[x, 3]", "retrieve", "genre", 20),
        ("Action 1: Retrieve[attribute='genre', k=20]", "retrieve", "genre", 20),
        ('Action 1: Retrieve["genre", "20"]', "retrieve", "genre", 20),
        ("Action 1: Retrieve[genre, 20.0]", "retrieve", "genre", 20),
        ("Action 1: Retrieve[genre, 20 items]", "retrieve", "genre", 20),
        ("Action 1: Retrieve[genre, -5]", "retrieve", "genre", -5),
        ("Action 1: Rank[lead actors, popularity, 10]", "rank", "lead actors; popularity", 10),
        ("Action 1：Rank[氛围, 10]", "rank", "氛围", 10),
        ("Thought: an action: comedy mix.\nAction 2: Rank[humour, 5]", "rank", "humour", 5),
        ("Action 1: Rank[<b>[x, 5]", "rank", "b(x", 5),
    ],
)
def test_calls_in_the_text_form(text, name, attribute, k):
    assert parse_text_reply(text, allowed=NAMES) == ToolCall(name=name, attribute=attribute, k=k)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("Action 4: Finish[<m1>, <m2>]", ("<m1>", "<m2>")),
        ("Action 4: Finish[m1, m2]", ("m1", "m2")),
        ("Action 4: **Finish**[\n1. <m1> A\n2. <m2> B\n]\nThat is all [really].", ("<m1> A", "<m2> B")),
        ("Action 4: Finish\n1. Heat (1995)\n2. [REC] (2007)", ("Heat (1995)", "[REC] (2007)")),
        ("Finish[Toy Story; Heat]", ("Toy Story", "Heat")),
        ('Finish(["m1", "m2"])', ("m1", "m2")),
        ("Action 4: Finish[<m1>, <m2>", ("<m1>", "<m2>")),
    ],
)
def test_finish_in_the_text_form(text, items):
    assert parse_text_reply(text, allowed=NAMES) == ToolCall(name="finish", items=items)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("I am not sure.", "no_action"),
        ("Action 1: Search[genre, 20]", "unknown_action"),
        ("Action 1: Retrieve[genre, many]", "bad_k"),
        ("Action 1: Finish[]", "empty_list"),
        ("Action 1: Finish", "empty_list"),
    ],
)
def test_unusable_replies_say_why(text, kind):
    with pytest.raises(ReplyError) as caught:
        parse_text_reply(text, allowed=NAMES)
    assert caught.value.kind == kind and caught.value.message


def test_a_tool_that_there_is_not_is_refused():
    with pytest.raises(ReplyError, match="finish, retrieve"):
        parse_text_reply("Action 1: Rank[genre, 5]", allowed=frozenset(("retrieve", "finish")))


def test_an_observation_of_its_own_making_is_cut():
    reply = "Thought 1: a\nAction 1: Retrieve[genre, 5]\n**Observation 1:** <m1> <m2>\nAction 2: Finish[<m1>]"
    assert cut_observation(reply) == "Thought 1: a\nAction 1: Retrieve[genre, 5]"
    assert cut_observation("Thought 1: an observation: none") == "Thought 1: an observation: none"


def test_the_thought_is_what_stands_before_the_action():
    assert thought_of("Thought 3: I like it.\nSo much.\nAction 3: Finish[<m1>]") == "I like it.\nSo much."
    assert thought_of("**Thought:** yes\n**Action:** Finish[<m1>]") == "yes"
    assert thought_of("") == ""


@pytest.mark.parametrize(
    ("name", "arguments", "call"),
    [
        ("retrieve", '{"attribute": "genre", "k": 20}', ToolCall(name="retrieve", attribute="genre", k=20, call_id="c")),
        ("Retrieve", '{"attribute": "genre", "k": "20"}', ToolCall(name="retrieve", attribute="genre", k=20, call_id="c")),
        ("retrieve", '{"attribute": null, "k": 2.0}', ToolCall(name="retrieve", k=2, call_id="c")),
        ("retrieve", '{"attribute": "None"}', ToolCall(name="retrieve", call_id="c")),
        ("retrieve", "{}", ToolCall(name="retrieve", call_id="c")),
        ("retrieve", "", ToolCall(name="retrieve", call_id="c")),
        ("rank", '{"attribute": "a\\nb|c", "k": 5}', ToolCall(name="rank", attribute="a b/c", k=5, call_id="c")),
        ("finish", '{"items": ["m1", 2]}', ToolCall(name="finish", items=("m1", "2"), call_id="c")),
        ("finish", '{"items": "<m1>, <m2>"}', ToolCall(name="finish", items=("<m1>", "<m2>"), call_id="c")),
        ("finish", '{"list": [{"id": "m1", "title": "A"}]}', ToolCall(name="finish", items=("<m1> A",), call_id="c")),
    ],
)
def test_native_calls(name, arguments, call):
    assert parse_tool_call(name, arguments, call_id="c", allowed=NAMES) == call


@pytest.mark.parametrize(
    ("name", "arguments", "kind"),
    [
        ("search", "{}", "unknown_action"),
        ("", "{}", "unknown_action"),
        ("retrieve", '{"attribute": "genre", ', "bad_arguments"),
        ("retrieve", "[1]", "bad_arguments"),
        ("retrieve", '{"attribute": ["genre"]}', "bad_arguments"),
        ("retrieve", '{"k": "many"}', "bad_k"),
        ("retrieve", '{"k": true}', "bad_k"),
        ("retrieve", '{"k": 1e400}', "bad_k"),
        ("retrieve", '{"k": NaN}', "bad_arguments"),
        ("retrieve", '{"k": [1]}', "bad_k"),
        ("finish", "{}", "bad_arguments"),
        ("finish", '{"items": 5}', "bad_arguments"),
        ("finish", '{"items": []}', "empty_list"),
        ("finish", "[" * 50_000, "bad_arguments"),
        ("retrieve", valid_arguments("{broken"), "bad_arguments"),
    ],
)
def test_unusable_native_calls_say_why(name, arguments, kind):
    with pytest.raises(ReplyError) as caught:
        parse_tool_call(name, arguments, call_id="c", allowed=NAMES)
    assert caught.value.kind == kind


def test_a_huge_k_stays_a_small_number():
    assert parse_tool_call("rank", '{"k": 1' + "0" * 300 + "}", call_id="", allowed=NAMES).k == 10**9


def test_broken_arguments_are_echoed_inside_valid_json():
    assert valid_arguments('{"k": 5}') == '{"k": 5}'
    assert valid_arguments("") == valid_arguments(" \r") == "{}"
    assert json.loads(valid_arguments('{"k": ')) == {"not_json": '{"k": '}


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("<m1>\n<m2>", ToolCall(name="finish", items=("<m1>", "<m2>"))),
        ('["m1", "m2"]', ToolCall(name="finish", items=("m1", "m2"))),
        ("My list:\n1. Heat\n2. Casino\n3. Ronin", ToolCall(name="finish", items=("Heat", "Casino", "Ronin"))),
        ("Retrieve[genre, 5]", ToolCall(name="retrieve", attribute="genre", k=5)),
    ],
)
def test_plain_replies_where_tool_calls_were_expected(text, call):
    assert parse_plain_reply(text, allowed=NAMES) == call


@pytest.mark.parametrize("text", ["", "I think the user likes <m1>.", "Let me think.", "1. first I look around\n2. then"])
def test_plain_talk_is_no_list(text):
    with pytest.raises(ReplyError):
        parse_plain_reply(text, allowed=NAMES)


pieces = st.sampled_from(
    ["Action 1:", "Thought", "Retrieve[", "Rank(", "Finish[", "]", ")", "<m1>", ",", " 20", "\n", "Observation 1:", "[", "{", '"']
)
replies = st.one_of(st.text(max_size=300), st.lists(st.one_of(pieces, st.text(max_size=8)), max_size=25).map("".join))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from(["attribute", "k", "items", "list", "x"]), values, max_size=4)


def only_calls_or_reasons(parse) -> None:
    try:
        call = parse()
    except ReplyError as error:
        assert error.message
        return
    assert isinstance(call, ToolCall) and call.name in NAMES
    assert call.attribute is None or (0 < len(call.attribute) <= 80 and not set(call.attribute) & set("\n[],<>|"))
    assert call.k is None or isinstance(call.k, int)
    assert (call.name == "finish") == bool(call.items)


@settings(deadline=None)
@given(replies)
@example("Finish[" * 50)
def test_any_text_is_an_action_or_a_reason(text):
    only_calls_or_reasons(lambda: parse_text_reply(text, allowed=NAMES))
    only_calls_or_reasons(lambda: parse_plain_reply(text, allowed=NAMES))
    assert isinstance(thought_of(cut_observation(text)), str)


@settings(deadline=None)
@given(st.one_of(st.sampled_from(sorted(NAMES)), st.text(max_size=10)), st.one_of(replies, objects.map(json.dumps)))
def test_any_native_call_is_an_action_or_a_reason(name, arguments):
    only_calls_or_reasons(lambda: parse_tool_call(name, arguments, call_id="", allowed=NAMES))
    assert isinstance(json.loads(valid_arguments(arguments)), dict)


@pytest.mark.parametrize(
    "unit",
    [
        "Action 1: ",
        "Finish[",
        "action ",
        "Action" + " " * 50,
        "\n",
        " ",
        "*",
        "[",
        "<",
        "<m1>, ",
        "1. a\n",
        "Observation ",
        "Thought: ",
    ],
)
def test_a_reply_of_a_megabyte_takes_bounded_time(unit):
    text = unit * (1_000_000 // len(unit))
    began = time.process_time()
    for parse in (parse_text_reply, parse_plain_reply):
        only_calls_or_reasons(lambda parse=parse: parse(text, allowed=NAMES))
    only_calls_or_reasons(lambda: parse_tool_call("finish", json.dumps({"items": text}), call_id="", allowed=NAMES))
    only_calls_or_reasons(lambda: parse_tool_call("finish", text, call_id="", allowed=NAMES))
    thought_of(cut_observation(text))
    assert time.process_time() - began < 1.5
