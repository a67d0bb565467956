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
        ("Action 1: Retrieve[None, 10]", "retrieve", None, 10),
        ("Action 1: Retrieve[null, 10]", "retrieve", None, 10),
        ("Action 1: Retrieve[genre]", "retrieve", "genre", None),
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
        ("Action 1: Retrieve[15]", "bad_arguments"),
        ("Action 1: Retrieve[]", "bad_arguments"),
        ("I would say Retrieve[genre, 20] tells most.", "no_action"),
        ("I could Retrieve[mood, 20] but rather Retrieve[genre, 20]", "no_action"),
        ("I must not Finish[<m1>, <m2>] yet.", "no_action"),
        ("Retrieve[genre, 20] would be one way to go on.", "no_action"),
        ("Action: Finish with the best, like <m1> and <m2>.", "empty_list"),
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
        ("retrieve", '{"attribute": "genre", "k": "many"}', "bad_k"),
        ("retrieve", '{"attribute": "genre", "k": true}', "bad_k"),
        ("retrieve", '{"attribute": "genre", "k": 1e400}', "bad_k"),
        ("retrieve", '{"attribute": "genre", "k": NaN}', "bad_arguments"),
        ("retrieve", '{"attribute": "genre", "k": [1]}', "bad_k"),
        ("retrieve", "{}", "bad_arguments"),
        ("retrieve", "", "bad_arguments"),
        ("retrieve", '{"k": 20}', "bad_arguments"),
        ("retrieve", '{"attribute": ["genre", "mood"], "k": 5}', "bad_arguments"),
        ("retrieve", '{"attribute": "none", "k": 5}{"attribute": "genre", "k": 5}', "bad_arguments"),
        ("retrieve", valid_arguments("broken"), "bad_arguments"),
        ("finish", '{"items": ["m1", "m2", "m', "bad_arguments"),
        ("finish", '{"items": {"first": "m1"}}', "bad_arguments"),
        ("finish", "{}", "bad_arguments"),
        ("finish", '{"items": 5}', "bad_arguments"),
        ("finish", '{"items": []}', "empty_list"),
        ("finish", "[" * 50_000, "bad_arguments"),
    ],
)
def test_unusable_native_calls_say_why(name, arguments, kind):
    with pytest.raises(ReplyError) as caught:
        parse_tool_call(name, arguments, call_id="c", allowed=NAMES)
    assert caught.value.kind == kind


def test_a_huge_k_stays_a_small_number():
    assert parse_tool_call("rank", '{"attribute": "genre", "k": 1' + "0" * 300 + "}", call_id="", allowed=NAMES).k == 10**9


def test_broken_arguments_are_echoed_inside_valid_json():
    assert valid_arguments('{"k": 5}') == '{"k": 5}'
    assert valid_arguments("") == valid_arguments(" \r") == "{}"
    assert json.loads(valid_arguments('{"k": ')) == {"not_json": '{"k": '}
    assert json.loads(valid_arguments("{'k': 5,}")) == {"k": 5}


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("<m1>\n<m2>\n<m3>", ToolCall(name="finish", items=("<m1>", "<m2>", "<m3>"))),
        ('["m1", "m2", "m3"]', ToolCall(name="finish", items=("m1", "m2", "m3"))),
        (
            "I am done.\nMy list:\n1. Heat\n2. Casino\n3. Ronin\nEnjoy!",
            ToolCall(name="finish", items=("Heat", "Casino", "Ronin")),
        ),
        ("Not <m8> nor <m9>.\n**Final list:** <m1>, <m2>, <m3>", ToolCall(name="finish", items=("<m1>", "<m2>", "<m3>"))),
        ("Retrieve[genre, 5]", ToolCall(name="retrieve", attribute="genre", k=5)),
    ],
)
def test_plain_replies_where_tool_calls_were_expected(text, call):
    assert parse_plain_reply(text, allowed=NAMES, list_length=3) == call


@pytest.mark.parametrize(
    "text",
    [
        "I have heard good things about <m1> and <m2>.",
        "The best so far:\n1. <m1> A\n2. <m2> B\n3. <m3> C\nNow let me check the genre.",
        "The best so far:\n1. <m1> A\n2. <m2> B\n3. <m3> C",
        "My plan:\n1. Look around.\n2. Look by genre.\n3. Finish with the best.",
        "What I watched:\n1. Heat\n2. Casino\n3. Ronin",
        "<m1>\n<m2>",
        "1. <m1> A\n2. <m2> B\n3. <m3> C\n4. <m4> D",
        "Final list:\n1. <m1>\n2. <m2>",
        "Final list: <m1>, <m2>, <m3>\nor rather <m4>",
        "My final list will have <m1>, <m2> and <m3>.",
        "My list so far:\n1. <m1>\n2. <m2>\n3. <m3>",
        "My list: I would take <m1>, <m2> and <m3>",
    ],
)
def test_talk_about_items_is_no_final_list(text):
    with pytest.raises(ReplyError) as caught:
        parse_plain_reply(text, allowed=NAMES, list_length=3)
    assert caught.value.kind == "no_action"


GENRE = ToolCall(name="retrieve", attribute="genre", k=5)
JSON_CALL = '{"name": "retrieve", "arguments": {"attribute": "genre", "k": 5}}'


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>\n{JSON_CALL}\n</tool_call>",
        f"I liked <m1>.\n<tool_call>{JSON_CALL}",
        f"<functioncall> {JSON_CALL} </functioncall>",
        JSON_CALL,
        f"[{JSON_CALL}]",
        f"Let me look.\n```json\n{JSON_CALL}\n```\nThen I finish.",
        f"Let me look.\n{JSON_CALL}",
        '{"tool": "functions.retrieve", "tool_input": {"attribute": "genre", "k": 5}}',
        '{"action": "Retrieve", "action_input": "{\\"attribute\\": \\"genre\\", \\"k\\": 5}"}',
        '{"thought": "x", "action": "Retrieve", "attribute": "genre", "k": 5}',
        '{"retrieve": {"attribute": "genre", "k": 5}}',
        '{"tool_calls": [{"function": {"name": "retrieve", "arguments": "{\\"attribute\\": \\"genre\\", \\"k\\": 5}"}}]}',
        f"[TOOL_CALLS] [{JSON_CALL}]",
        '[TOOL_CALLS]retrieve[ARGS]{"attribute": "genre", "k": 5}',
        f"<|python_tag|>{JSON_CALL}",
        "<|python_tag|>retrieve(attribute='genre', k=5)",
        '<function=retrieve>{"attribute": "genre", "k": 5}</function>',
        "<tool_call>\n<function=retrieve>\n<parameter=attribute>\ngenre\n</parameter>\n<parameter=k>5</parameter></function>",
        "<tool_call>retrieve\n<arg_key>attribute</arg_key>\n<arg_value>genre</arg_value><arg_key>k</arg_key><arg_value>5</arg_value>",
        'retrieve(attribute="genre", k=5)',
        "Looking.\n```python\nprint(default_api.retrieve(attribute='genre', k=5))\n```",
        "[retrieve(attribute='genre', k=5)]",
        '<|tool_call_begin|>functions.retrieve:0<|tool_call_argument_begin|>{"attribute": "genre", "k": 5}<|tool_call_end|>',
        '<|channel|>commentary to=functions.retrieve <|constrain|>json<|message|>{"attribute": "genre", "k": 5}<|call|>',
        'function<｜tool▁sep｜>retrieve\n```json\n{"attribute": "genre", "k": 5}\n```<｜tool▁call▁end｜>',
        '<｜tool▁call▁begin｜>retrieve<｜tool▁sep｜>{"attribute": "genre", "k": 5}<｜tool▁call▁end｜>',
        '<invoke name="retrieve"><parameter name="attribute">genre</parameter><parameter name="k">5</parameter></invoke>',
        "<retrieve><attribute>genre</attribute><k>5</k></retrieve>",
    ],
)
def test_calls_that_leaked_into_the_text(text):
    call = parse_plain_reply(text, allowed=NAMES)
    assert call == GENRE
    assert call.repairs[0].startswith("leaked_")
    assert parse_text_reply(text, allowed=NAMES) == GENRE


@pytest.mark.parametrize(
    "text",
    ['I would call retrieve(attribute="genre", k=5) next.', "One could write {'name': 'retrieve'} here.", '[{"name": "Heat"}]'],
)
def test_a_call_in_a_sentence_is_a_mention(text):
    with pytest.raises(ReplyError):
        parse_plain_reply(text, allowed=NAMES)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_several_leaked_calls_a_finish_is_never_the_first(order):
    calls = [JSON_CALL, '{"name": "finish", "arguments": {"items": ["m1"]}}']
    text = "".join(f"<tool_call>{calls[number]}</tool_call>" for number in order)
    if order[0] == 0:
        assert parse_plain_reply(text, allowed=NAMES) == GENRE
    else:
        with pytest.raises(ReplyError, match="several calls"):
            parse_plain_reply(text, allowed=NAMES)


@pytest.mark.parametrize(
    ("arguments", "repair"),
    [
        ('{"attribute": "genre", "k": 5,}', "json"),
        ("{'attribute': 'genre', 'k': 5}", "json"),
        ('{"attribute": "genre", "k": 5', "missing_bracket"),
        ('```json\n{"attribute": "genre", "k": 5}\n```', "fence"),
        ('{"attribute": "genre", "k": 5}\n</tool_call>', "text_behind"),
        ('{"attribute": "genre", "k": 5}{"attribute": "genre", "k": 5}', "glued_objects"),
        (json.dumps('{"attribute": "genre", "k": 5}'), "encoded_twice"),
        ('{"parameters": {"attribute": "genre", "k": 5}}', "wrapped_arguments"),
        ('{"name": "retrieve", "arguments": {"attribute": "genre", "k": 5}}', "wrapped_arguments"),
        ('{"Attribute": "genre", "K": "5"}', "other_key"),
        ('{"attr": "genre", "top_k": 5}', "other_key"),
        ('{"attribute": ["genre"], "k": 5}', "single_value"),
        ('[{"attribute": "genre", "k": 5}]', "bare_list"),
    ],
)
def test_arguments_that_mean_one_thing_are_repaired_and_say_so(arguments, repair):
    call = parse_tool_call("retrieve", arguments, call_id="", allowed=NAMES)
    assert call == GENRE and repair in call.repairs


@pytest.mark.parametrize(
    "arguments",
    [
        '{"ids": ["m1", "m2"]}',
        '{"movies": ["m1", "m2"]}',
        '{"my_picks": ["m1", "m2"]}',
        '["m1", "m2"]',
        '{"items": [["m1", "m2"]]}',
        '{"items": ["m1, m2"]}',
        "{\"items\": \"['m1', 'm2']\"}",
        '{"items": {"2": "m2", "1": "m1"}}',
        '{"arguments": {"items": ["m1", "m2"]}}',
        '{"items": ["m1", "m2"]',
    ],
)
def test_final_lists_in_other_wrappings(arguments):
    assert parse_tool_call("finish", arguments, call_id="", allowed=NAMES) == ToolCall(name="finish", items=("m1", "m2"))


@pytest.mark.parametrize(
    "name",
    [
        "functions.finish",
        "default_api:finish",
        "finish<|channel|>json",
        "finish()",
        "functions.finish:0",
        "Finish ",
        "tools/finish",
    ],
)
def test_names_with_something_around_them(name):
    assert parse_tool_call(name, '{"items": ["m1"]}', call_id="", allowed=NAMES).items == ("m1",)


@pytest.mark.parametrize(
    "text",
    [
        "Action: Finish[<m1>, <m2>",
        "Action: Finish[<m1>,",
        "Thought: I think",
        "",
    ],
)
def test_a_reply_that_the_token_limit_has_cut_is_no_list(text):
    with pytest.raises(ReplyError, match="--llm-max-output-tokens") as caught:
        parse_text_reply(text, allowed=NAMES, is_cut=True)
    assert caught.value.kind == "cut_off"
    assert parse_text_reply("Action: Finish[<m1>, <m2>]", allowed=NAMES, is_cut=True).items == ("<m1>", "<m2>")
    with pytest.raises(ReplyError, match="--llm-max-output-tokens"):
        parse_plain_reply("My list:\n1. <m1>\n2. <m2>\n3. <m3>", allowed=NAMES, list_length=3, is_cut=True)
    with pytest.raises(ReplyError, match="--llm-max-output-tokens"):
        parse_tool_call("finish", '{"items": ["m1"', call_id="", allowed=NAMES, is_cut=True)


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("Action: Retrieve\nAction Input: genre, 5", GENRE),
        ('Action: Retrieve\nAction Input: {"attribute": "genre", "k": 5}', GENRE),
        ("Action: Finish\nAction Input: <m1>, <m2>", ToolCall(name="finish", items=("<m1>", "<m2>"))),
        ('Action: Finish\nAction Input: {"items": ["m1", "m2"]}', ToolCall(name="finish", items=("m1", "m2"))),
        (
            "Action: Finish[\n1. <m1> A (1978)\n2. <m2> B (1979)\n]",
            ToolCall(name="finish", items=("<m1> A (1978)", "<m2> B (1979)")),
        ),
        ("Action: Finish(A (1978); B (1979))", ToolCall(name="finish", items=("A (1978)", "B (1979)"))),
        ("Action: Retrieve[5, genre]", GENRE),
        ("Action: Retrieve<genre, 5>", GENRE),
        ("行动 1：Retrieve【genre，5】", GENRE),
        ("Thought: I must not Finish[] yet.\nRetrieve[genre, 5]", GENRE),
    ],
)
def test_other_forms_of_actions(text, call):
    assert parse_text_reply(text, allowed=NAMES) == call


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


@pytest.mark.parametrize("item_id", ["7.", '"6"', "*5*", "'6'", "_x_", "5,", "a;b", "“q”", "...", "#4"])
def test_ids_with_marks_around_them_can_be_named(item_id):
    items = {"items": [item_id, "m2"]}
    assert parse_tool_call("finish", json.dumps(items), call_id="", allowed=NAMES).items == (item_id, "m2")
    assert parse_text_reply(f"Action 1: Finish[<{item_id}>, <m2>]", allowed=NAMES).items == (f"<{item_id}>", "<m2>")
