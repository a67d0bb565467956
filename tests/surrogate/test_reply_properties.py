"""No reply and no title crashes what reads it, whatever it holds; what comes out is bounded, storable and of the pool."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from toolrec.data import AttributeSpec, Pool
from toolrec.data.pool import MOVIES
from toolrec.errors import ReplyError
from toolrec.llm.embedded import EmbeddedOptions
from toolrec.llm.embedded.app import answer
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.llm.refusals import ErrorBody, without_secrets
from toolrec.llm.replies import UnusableReplyError, read_completion
from toolrec.memory import Memory, PoolDirectory
from toolrec.records import Candidate, RankedItem, ToolCall, UserTask
from toolrec.surrogate.config import SurrogateConfig
from toolrec.surrogate.parsing import MAX_REPLY_CHARACTERS
from toolrec.surrogate.prompting import Offer, Prompts
from toolrec.surrogate.protocols import MAX_CALLS, MAX_NAME_CHARACTERS, TextProtocol, ToolsProtocol
from toolrec.tools.lines import observation_text, scored_lines

NUM_ITEMS = 12
TOOLS = ("retrieve", "rank")
NATIVE = ToolsProtocol(tool_names=TOOLS, attributes=("none", "genre"), max_k=50, list_length=10)
TEXT = TextProtocol(tool_names=TOOLS)


def pool_of(titles: list[str]) -> Pool:
    return Pool(
        item_ids=["", *(f"m{i}" for i in range(1, NUM_ITEMS + 1))],
        titles=["", *(titles[i % len(titles)] for i in range(NUM_ITEMS))],
        attributes=[AttributeSpec(name="genre", kind="categories")],
        values={"genre": [["Drama", "War"][: 1 + i % 2] for i in range(NUM_ITEMS)]},
        domain=MOVIES,
    )


PLAIN = pool_of([f"Film {i}, The (19{50 + i})" for i in range(NUM_ITEMS)])

PIECES = (
    *(
        "Action 1: ",
        "Thought 1: ",
        "Observation 1:\n",
        "Retrieve[",
        "Rank[",
        "Finish[",
        "]",
        ", 20]",
        "genre",
        "none",
        "<m1>",
        "<m99>",
    ),
    *(
        "m3",
        "Film 3, The (1953)",
        "[",
        "{",
        '"',
        "\\",
        "\n",
        "1. ",
        "| genre: War",
        "Rounds left: 0",
        "Finish now",
        "Candidates:",
    ),
    *("History (oldest first):", "Attributes: ", "Not accepted: ", "Error: ", "```json\n", "<think>", "</think>", "null"),
    *("\ud800", "\x00", "\u2028", "\u202e", "9" * 40, "-1", "1e999"),
)
words = st.lists(st.sampled_from(PIECES) | st.text(st.characters(), max_size=12), max_size=14).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=10,
)
arguments = json_values | st.fixed_dictionaries(
    {},
    optional={
        "attribute": st.sampled_from(["genre", "none"]) | json_values,
        "k": st.integers(-5, 99) | json_values,
        "items": st.lists(st.sampled_from([f"m{i}" for i in range(15)]) | json_values, max_size=12) | json_values,
    },
)
calls = st.fixed_dictionaries(
    {},
    optional={
        "id": words | json_values,
        "function": st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(["retrieve", "rank", "finish", "FINISH "]) | words | json_values,
                "arguments": arguments.map(json.dumps) | words | arguments,
            },
        )
        | json_values,
    },
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "content": words | json_values,
        "tool_calls": st.lists(calls | json_values, max_size=4) | json_values,
        "reasoning_content": words | json_values,
        "refusal": words | json_values,
    },
)
completions = json_values | st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries({"message": messages | json_values, "finish_reason": words}) | json_values,
            min_size=1,
            max_size=2,
        )
    },
    optional={"usage": st.fixed_dictionaries({}, optional={"prompt_tokens": json_values, "completion_tokens": json_values})},
)


def read_all(protocol: ToolsProtocol | TextProtocol, data: Any) -> list[ToolCall]:
    """Everything that is read of a reply; fails unless it is bounded and can be sent and stored."""
    try:
        completion = read_completion(data, num_attempts=1)
    except UnusableReplyError:
        return []
    message = protocol.echo(completion)
    thought = protocol.thought(completion)
    stored = json.dumps(message, ensure_ascii=False)
    assert json.loads(pa.array([stored], pa.string())[0].as_py()) == message
    pa.array([thought], pa.string())
    assert len(thought) <= MAX_REPLY_CHARACTERS
    parts = protocol.open_replies(message)
    assert 1 <= len(parts) <= MAX_CALLS
    read: list[ToolCall] = []
    for part in parts:
        assert len(part.name) <= MAX_NAME_CHARACTERS
        try:
            read.append(protocol.read(part))
        except ReplyError as error:
            refusal = protocol.refusal(part, error.message, number=1)
            pa.array([json.dumps(refusal, ensure_ascii=False)], pa.string())
            assert len(error.message) < 2_000
    return read


@given(data=completions, history=st.sets(st.integers(1, NUM_ITEMS), max_size=4))
def test_no_reply_crashes_the_parser_or_brings_in_a_foreign_item(data, history):
    candidates = [Candidate(item_index=i, mark="Retrieve[none]", round=1, position=i, score=0.0) for i in range(1, 6)]
    for protocol in (NATIVE, TEXT):
        for call in read_all(protocol, data):
            assert call.name in ("retrieve", "rank", "finish")
            pa.array([call.attribute or "", *call.items], pa.string())
            memory = Memory(PoolDirectory.of(PLAIN), history, candidates=[c for c in candidates if c.item_index not in history])
            checked = memory.check_entries(call.items, length=10)
            for items in (checked.items, memory.completed(checked.items, length=10)):
                assert all(0 <= item <= NUM_ITEMS and item not in history for item in items)
            pa.array([checked.reason], pa.string())


@given(raw=st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_error_body_crashes_its_reader_or_keeps_a_key(raw):
    key = "sk-a-key-of-this-test"
    body = ErrorBody(raw.decode(errors="replace") + key, secrets=(key,))
    assert key not in body.message and len(body.message) <= 2_000
    body.refused_parameter(("model", "stop", "seed"))
    assert body.is_context_too_long in (True, False)


@given(data=completions, key=st.text("abcdefgh0123", min_size=8, max_size=12))
def test_a_key_leaves_every_part_of_a_reply(data, key):
    spoilt = json.loads(json.dumps(data).replace("genre", key))
    try:
        completion = without_secrets(read_completion(spoilt, num_attempts=1), (key,))
    except UnusableReplyError:
        return
    texts = (
        completion.text,
        completion.reasoning,
        completion.finish_reason,
        *(t for c in completion.tool_calls for t in (c.id, c.name, c.arguments)),
    )
    assert not any(key in text for text in texts)


titles = st.lists(words | st.text(st.characters(), max_size=400), min_size=1, max_size=NUM_ITEMS)


def first_decisions(pool: Pool) -> list[Any]:
    """What the embedded rules say at the start, after a list came back, and at the forced finish."""
    directory = PoolDirectory(pool)
    config = SurrogateConfig()
    prompts = Prompts(config, directory, Offer(tool_names=TOOLS, attributes=("genre",)))
    opening = list(prompts.opening(UserTask(user_index=1, user_id="u", history=(1, 2, 3), ratings=(4.0, 1.0, 5.0))))
    items = [RankedItem(item_index=i, score=1 / i) for i in range(4, 10)]
    seen = observation_text("Retrieve[genre, 6]", scored_lines(directory, items))
    said: list[Any] = []
    for protocol in (NATIVE, TEXT):
        rest: list[dict[str, Any]] = []
        for rounds_left in (6, 0):
            said.append(ask([*opening, *rest], protocol.schemas(is_last=rounds_left == 0)))
            reply = protocol.open_replies(said[-1])[0]
            rest += [said[-1], protocol.answer(reply, prompts.with_rounds_left(seen, rounds_left), number=1)]
        said.append(ask([*opening, *rest], protocol.schemas(is_last=True)))
    return said


def ask(messages: list[dict[str, Any]], tools: Any) -> dict[str, Any]:
    request = {"model": MODEL_NAME, "messages": messages, **({"tools": list(tools)} if tools else {})}
    message: dict[str, Any] = answer(request, EmbeddedOptions())["choices"][0]["message"]
    return message


EXPECTED = first_decisions(PLAIN)


@given(titles=titles)
def test_no_title_changes_what_the_rules_decide(titles):
    assert first_decisions(pool_of(titles)) == EXPECTED


@given(titles=titles, entries=st.lists(words, max_size=12), among=st.none() | st.sets(st.integers(1, NUM_ITEMS)))
def test_no_title_and_no_entry_crashes_memory(titles, entries, among):
    pool = pool_of(titles)
    memory = Memory(PoolDirectory(pool), [2])
    written = [*entries, *pool.titles[1:4], *(f"<m{i}> {pool.titles[i]}" for i in (4, 5))]
    checked = memory.check_entries(written, length=10, among=among)
    allowed = (among if among is not None else set(range(1, NUM_ITEMS + 1))) - {2}
    assert all(item in allowed for item in checked.items if item)
    assert len(checked.reason) < 3_000 and len(checked.reason.splitlines()) <= 1
    pa.array([checked.reason.encode("utf-8", "strict").decode()], pa.string())
