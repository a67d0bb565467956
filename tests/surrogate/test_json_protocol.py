"""`--protocol json`: what the schema allows, how replies in it are read, and simpler schemas for endpoints that refuse it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from toolrec.errors import ReplyError
from toolrec.llm.response_formats import format_level_of, simpler_format
from toolrec.llm.scripted import ScriptedLLM
from toolrec.records import ToolCall
from toolrec.surrogate.json_protocol import JsonProtocol
from toolrec.surrogate.protocols import OpenReply

RULES = JsonProtocol(tool_names=("retrieve", "rank"), attributes=("none", "genre", "mood"), max_k=50, list_length=3)
IDS = [f"m{n}" for n in range(11, 16)]


def schema_of(*, is_last: bool = False, ids: Any = IDS) -> dict[str, Any]:
    return RULES.response_format(is_last=is_last, candidate_ids=ids)["json_schema"]["schema"]


def said(**action: Any) -> str:
    return json.dumps({"thought": "hm", "action": action})


def allows(schema: dict[str, Any], **action: Any) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(json.loads(said(**action)))


RETRIEVE = {"tool": "retrieve", "attribute": "genre", "k": 5}
FINISH = {"tool": "finish", "items": ["m11", "m12", "m13"]}


def test_the_schema_is_valid_and_lists_what_there_is():
    jsonschema.Draft202012Validator.check_schema(schema_of())
    assert allows(schema_of(), **RETRIEVE) and allows(schema_of(), **FINISH)
    assert allows(schema_of(), tool="rank", attribute="popularity", k=50)
    for wrong in (
        {**RETRIEVE, "attribute": "director"},
        {**RETRIEVE, "k": 51},
        {**RETRIEVE, "k": 0},
        {"tool": "retrieve", "k": 5},
        {"tool": "search", "attribute": "genre", "k": 5},
        {**FINISH, "items": ["m11", "m12"]},
        {**FINISH, "items": ["m11", "m12", "m99"]},
    ):
        assert not allows(schema_of(), **wrong), wrong


def test_without_candidates_there_is_nothing_to_finish_with_and_in_the_last_round_nothing_else():
    assert allows(schema_of(ids=[]), **RETRIEVE) and not allows(schema_of(ids=[]), **FINISH)
    assert allows(schema_of(is_last=True), **FINISH) and not allows(schema_of(is_last=True), **RETRIEVE)
    assert allows(schema_of(is_last=True, ids=[]), **FINISH)


@pytest.mark.parametrize(
    ("text", "call"),
    [
        (said(**RETRIEVE), ToolCall(name="retrieve", attribute="genre", k=5)),
        (said(**FINISH), ToolCall(name="finish", items=("m11", "m12", "m13"))),
        (json.dumps({"name": "retrieve", "arguments": {"attribute": "genre", "k": 5}}), ToolCall(name="retrieve", attribute="genre", k=5)),  # noqa: E501
        ("Thought 1: x\nAction 1: Retrieve[genre, 5]", ToolCall(name="retrieve", attribute="genre", k=5)),
    ],
)  # fmt: skip
def test_replies(text, call):
    assert RULES.read(OpenReply(text=text)) == call


@pytest.mark.parametrize("text", ["", "I like <m11> and <m12>.", '{"thought": "x"}', '{"thought": "x", "action": "none"}', "{"])
def test_replies_without_an_action_are_asked_again(text):
    with pytest.raises(ReplyError):
        RULES.read(OpenReply(text=text))


def test_simpler_schemas_leave_out_bounds_and_ids_and_then_the_schema():
    whole = RULES.response_format(is_last=True, candidate_ids=[f"m{n}" for n in range(40)])
    simpler = simpler_format(whole, 1)
    assert simpler_format(whole, 0) == whole
    assert "minItems" not in json.dumps(simpler) and "m39" not in json.dumps(simpler) and '"finish"' in json.dumps(simpler)
    assert simpler_format(whole, 2) == {"type": "json_object"} and simpler_format(whole, 3) is None
    assert [format_level_of(form) for form in (whole, simpler, {"type": "json_object"})] == [0, 1, 2]


async def test_a_user_from_the_first_call_to_the_list(build, task):
    llm = ScriptedLLM([said(**RETRIEVE), said(tool="finish", items=["m11", "m12", "m13"])])
    trace = await build(llm, protocol="json", list_length=3).run(task)
    assert (trace.ended_by, trace.final_items) == ("finish", (11, 12, 13))
    assert trace.rounds[0].thought == "hm"
    first, second = (call.response_format["json_schema"]["schema"] for call in llm.calls)
    assert "finish" not in json.dumps(first)
    assert '"enum": ["m11", "m12", "m13", "m14", "m15"]' in json.dumps(second)
    assert all(call.tools is None for call in llm.calls)
