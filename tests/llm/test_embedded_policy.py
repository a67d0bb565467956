"""The rules: what they read, when they stop, what they rank."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from toolrec.llm.embedded import EmbeddedOptions
from toolrec.llm.embedded.app import RequestError, answer
from toolrec.llm.embedded.policy import DEFAULT_K, MODEL_NAME
from toolrec.llm.embedded.speaking import INVENTED_PREFIX
from toolrec.llm.embedded.tastes import RECENCY, SHARPNESS, fields_of, read_tastes


def ask(messages: list[dict[str, Any]], **request: Any) -> dict[str, Any]:
    options = request.pop("options", EmbeddedOptions())
    return answer({"model": MODEL_NAME, "messages": messages, **request}, options)["choices"][0]["message"]


def ranked(world: Any, history: Any, candidates: Any, *, by: str = "genre", k: int = 20, more: Any = ()) -> list[str]:
    prompt = (
        f"History (oldest first):\n{world.lines(history)}\n\nCandidates:\n{world.lines(candidates)}\n\n"
        f"Order them.\nRank by: {by}\nReturn: {k}\n"
    )
    text = ask([{"role": "user", "content": prompt}, *more])["content"]
    return [line.strip("<>") for line in text.splitlines()]


def test_explores_plainly_first_then_by_what_tells_most(world: Any) -> None:
    done = world.converse(is_native=True)
    assert done.calls[0] == f"Retrieve[none, {DEFAULT_K}]"
    assert {"Retrieve[genre, 20]", "Retrieve[release_year, 20]"} <= set(done.calls)
    assert len(done.calls) >= 3
    assert len(done.items) == len(set(done.items)) == 10
    shown = {item.item_id for call in done.calls for item in world.retrieved(call, 20)}
    assert set(done.items) <= shown


def test_both_protocols_agree(world: Any) -> None:
    for history in (world.drama_history(), [world.item(n) for n in range(20, 30)], [world.item(1), world.item(2)]):
        native = world.converse(is_native=True, history=history)
        text = world.converse(is_native=False, history=history)
        assert (native.calls, native.items) == (text.calls, text.items)
        assert native.message["content"] in text.message["content"]


def test_says_why(world: Any) -> None:
    done = world.converse(is_native=False)
    thoughts = "\n".join(m["content"] for m in done.request["messages"] if m["role"] == "assistant")
    assert "genre is telling: 7 of 10 are Drama." in thoughts
    assert done.message["content"].startswith(f"Thought {len(done.calls) + 1}: ")


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_finishes_when_rounds_are_over(world: Any, rounds: int) -> None:
    done = world.converse(is_native=True, rounds=rounds)
    assert len(done.calls) == rounds
    assert len(done.items) == 10


def test_finish_now_alone_forces_a_finish(world: Any) -> None:
    messages = [{"role": "user", "content": world.task(world.drama_history()) + "\nFinish now."}]
    assert ask(messages, tools=world.tools)["tool_calls"][0]["function"] == {"name": "finish", "arguments": '{"items": []}'}


def test_attribute_that_tells_nothing_is_skipped(world: Any) -> None:
    history = [world.item(n, ["Drama"], director=f"Director {n}") for n in range(1, 11)]
    task = world.task(history, attributes="none, director, genre, release_year, rare")
    messages: list[dict[str, Any]] = [{"role": "user", "content": task}]
    calls = []
    for number in range(1, 8):
        message = ask(messages, tools=world.tools)
        function = message["tool_calls"][0]["function"]
        if function["name"] == "finish":
            break
        arguments = json.loads(function["arguments"])
        calls.append((function["name"], arguments["attribute"]))
        text = world.observation(
            f"{function['name'].capitalize()}[{arguments['attribute']}, 20]", world.retrieved(str(number), 20), left=9
        )
        messages += [message, {"role": "tool", "tool_call_id": "x", "content": text}]
    assert ("retrieve", "director") not in calls
    assert ("retrieve", "rare") not in calls
    assert calls[:2] == [("retrieve", "none"), ("retrieve", "genre")]


def test_failed_call_is_not_made_again(world: Any) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": world.task(world.drama_history())}]
    seen = set()
    for _ in range(8):
        message = ask(messages, tools=world.tools)
        function = message["tool_calls"][0]["function"]
        assert (function["name"], function["arguments"]) not in seen
        seen.add((function["name"], function["arguments"]))
        if function["name"] == "finish":
            return
        messages += [message, {"role": "tool", "tool_call_id": "x", "content": "Error: out of order\nRounds left: 5"}]
    pytest.fail("never finished")


def test_call_that_arrived_malformed_is_made_again(world: Any) -> None:
    task = {"role": "user", "content": world.task(world.drama_history())}
    first = ask([task], tools=world.tools)
    broken = {**first["tool_calls"][0], "function": {"name": "retrieve", "arguments": '{"not_json": "{"}'}}
    refusal = {"role": "tool", "tool_call_id": "call_1", "content": "Not accepted: the arguments are not a JSON object."}
    again = ask([task, {**first, "tool_calls": [broken]}, refusal], tools=world.tools)
    assert again["tool_calls"][0]["function"] == first["tool_calls"][0]["function"]


@pytest.mark.parametrize("is_native", [True, False])
def test_refused_ids_are_left_out_of_the_corrected_list(world: Any, is_native: bool) -> None:
    done = world.converse(is_native=is_native)
    refused = done.items[3]
    role = {"role": "tool", "tool_call_id": "x"} if is_native else {"role": "user"}
    reason = {**role, "content": f"Not accepted: not in the pool: <{refused}>; give the whole list again."}
    request = {**done.request, "messages": [*done.request["messages"], done.message, reason]}
    message = answer(request, EmbeddedOptions())["choices"][0]["message"]
    written = message["tool_calls"][0]["function"]["arguments"] if is_native else message["content"].split("Action")[1]
    assert all(item in written for item in done.items if item != refused)
    assert f'"{refused}"' not in written
    assert f"<{refused}>" not in written


def test_history_is_never_on_the_list(world: Any) -> None:
    history = world.drama_history()
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": world.task(history)},
        {"role": "assistant", "content": "Thought 1: a\nAction 1: Retrieve[none, 20]"},
        {
            "role": "user",
            "content": "Observation 1:\n" + world.observation("Retrieve[none, 20]", [*history, world.item(200)], left=0),
        },
    ]
    assert ask(messages)["content"].endswith("Action 2: Finish[<200>]")
    assert ranked(world, history, [*history, world.item(200)]) == ["200"]


def test_task_is_read_from_the_last_user_message_with_a_history(world: Any) -> None:
    example = world.task([world.item(900), world.item(901)], attributes="none, colour")
    messages = [
        {"role": "system", "content": example},
        {"role": "user", "content": example},
        {"role": "assistant", "content": "Thought 1: a\nAction 1: Retrieve[none, 20]"},
        {"role": "user", "content": world.observation("Retrieve[none, 20]", [world.item(902)], left=1)},
        {"role": "user", "content": world.task(world.drama_history())},
    ]
    assert "Retrieve[none, 20]" in ask(messages)["content"]


def test_only_finish_on_offer(world: Any) -> None:
    done = world.converse(is_native=True)
    first_two = done.request["messages"][:4]
    message = ask(first_two, tools=world.tools[2:])
    assert message["tool_calls"][0]["function"]["name"] == "finish"
    forced = ask(first_two, tools=world.tools, tool_choice={"type": "function", "function": {"name": "finish"}})
    assert forced == message


def test_rank_is_used_only_where_the_prompt_offers_it(world: Any) -> None:
    task = world.task([world.item(n, ["Drama"], year=1990) for n in range(1, 11)], attributes="none, genre")
    start: list[dict[str, Any]] = [{"role": "user", "content": task}]
    for mark in ("Retrieve[none, 20]", "Retrieve[genre, 20]"):
        items = [world.item(n, ["Drama"]) for n in range(100, 130)]
        start += [
            {"role": "assistant", "content": f"Action 1: {mark}"},
            {"role": "user", "content": world.observation(mark, items, left=5)},
        ]
    offered = [{"role": "system", "content": "Rank[attribute, K] orders what was found."}, *start]
    assert "Action 3: Rank[genre, 20]" in ask(offered)["content"]
    assert "Action 3: Finish[" in ask(start)["content"]


def test_item_on_several_lists_comes_before_one_on_a_single_list(world: Any) -> None:
    shared, lone = world.item(300), world.item(301)
    messages: list[dict[str, Any]] = [{"role": "user", "content": world.task([world.item(1), world.item(2)])}]
    for mark, items in (
        ("Retrieve[none, 20]", [lone, shared]),
        ("Retrieve[genre, 20]", [world.item(302), shared]),
        ("Retrieve[release_year, 20]", [world.item(303), shared]),
    ):
        messages += [
            {"role": "assistant", "content": f"Action: {mark}"},
            {"role": "user", "content": world.observation(mark, items, left=0)},
        ]
    assert "Finish[<300>, " in ask(messages)["content"]


def test_rank_orders_by_the_attribute_asked_for(world: Any) -> None:
    history = [world.item(n, ["Drama"], year=1950) for n in range(1, 6)]
    old, drama = world.item(400, ["Action"], year=1950), world.item(401, ["Drama"], year=2000)
    assert ranked(world, history, [old, drama], by="genre") == ["401", "400"]
    assert ranked(world, history, [drama, old], by="release_year") == ["400", "401"]


def test_rank_by_something_unknown_still_ranks_and_keeps_to_k(world: Any) -> None:
    candidates = [world.item(n) for n in range(500, 530)]
    ids = ranked(world, world.drama_history(), candidates, by="famous actors", k=7)
    assert len(ids) == len(set(ids)) == 7
    assert set(ids) <= {item.item_id for item in candidates}


def test_rank_leaves_out_what_was_refused(world: Any) -> None:
    candidates = [world.item(n) for n in range(500, 505)]
    first = ranked(world, world.drama_history(), candidates)
    more = [
        {"role": "assistant", "content": "\n".join(f"<{i}>" for i in first)},
        {"role": "user", "content": f"Not accepted: not a candidate: <{first[0]}>"},
    ]
    assert ranked(world, world.drama_history(), candidates, more=more) == first[1:]


def test_prose_around_the_prompt_does_no_harm(world: Any) -> None:
    plain = world.task(world.drama_history())
    wordy = f"Dear model,\nplease play this user.\n\n{plain}\nThank you. Think well.\nYours, the operator\n"
    assert ask([{"role": "user", "content": plain}]) == ask([{"role": "user", "content": wordy}])
    parts = [{"type": "text", "text": plain}]
    assert ask([{"role": "user", "content": plain}]) == ask([{"role": "user", "content": parts}])


def test_stop_texts_are_respected(world: Any) -> None:
    content = ask([{"role": "user", "content": world.task(world.drama_history())}], stop="Action")["content"]
    assert content.startswith("Thought 1: ")
    assert "Action" not in content


@pytest.mark.parametrize(
    "content",
    [
        "Write a poem.",
        "History (oldest first):\n1. <1> A",
        "History (oldest first):\n1. <1> A\nCandidates:\n1. <2> B",
        "",
        None,
        5,
    ],
)
def test_foreign_prompt_is_refused_with_what_is_understood(content: Any) -> None:
    with pytest.raises(RequestError, match=r"not a language model.*understands three prompts") as caught:
        ask([{"role": "user", "content": content}])
    assert caught.value.status == 400


def test_category_taste_is_the_mean_cosine(world: Any) -> None:
    history = [world.item(1, ["Drama"]), world.item(2, ["Drama", "War"]), world.item(3, ["Comedy"])]
    taste = read_tastes(history, ["genre"], [])["genre"]
    w1, w2, w3 = RECENCY**2, RECENCY, 1.0
    drama_pair = 1 / math.sqrt(2)
    assert taste.telling == pytest.approx(w1 * w2 * drama_pair / (w1 * w2 + w1 * w3 + w2 * w3))
    assert taste.fit(fields_of(world.item(9, ["Comedy"]))) == pytest.approx(w3 / (w1 + w2 + w3))
    assert taste.fit(fields_of(world.item(9, ["War"]))) == pytest.approx(w2 * drama_pair / (w1 + w2 + w3))
    assert taste.summary == "2 of 3 are Drama"


def test_number_taste_is_closeness_against_the_spread(world: Any) -> None:
    history = [world.item(1, year=1990), world.item(2, year=1994)]
    taste = read_tastes(history, ["release_year"], [])["release_year"]
    spread = (2 + 2) / 2
    assert taste.telling == pytest.approx(math.exp(-SHARPNESS * 4 / spread))
    near = math.exp(-SHARPNESS * 1 / spread), math.exp(-SHARPNESS * 3 / spread)
    assert taste.fit(fields_of(world.item(9, year=1991))) == pytest.approx((RECENCY * near[0] + near[1]) / (RECENCY + 1))


def test_low_rated_items_weigh_less(world: Any) -> None:
    loved = [world.item(1, ["Drama"], rating=5), world.item(2, ["Action"], rating=1)]
    fit = read_tastes(loved, ["genre"], [])["genre"].fit
    assert fit(fields_of(world.item(9, ["Drama"]))) > fit(fields_of(world.item(9, ["Action"])))


@pytest.mark.parametrize("values", [["nan", "inf"], ["1e999", "2"], ["", ""], ["x", "3"]])
def test_odd_numbers_do_no_harm(world: Any, values: list[str]) -> None:
    history = [world.item(n, price=value) for n, value in enumerate(values, start=1)]
    task = world.task(history, attributes="none, price")
    assert "Retrieve[none, 20]" in ask([{"role": "user", "content": task}])["content"]


def spoilt(world: Any, **shares: float) -> dict[str, Any]:
    done = world.converse(is_native=True)
    return answer(done.request, EmbeddedOptions(**shares))["choices"][0]["message"]["tool_calls"][0]["function"]


def test_knobs_spoil_the_list_as_named(world: Any) -> None:
    clean = world.converse(is_native=True).items
    assert json.loads(spoilt(world, share_short=1)["arguments"])["items"] == clean[:5]
    invented = json.loads(spoilt(world, share_invented=1)["arguments"])["items"]
    assert sum(item.startswith(INVENTED_PREFIX) for item in invented) == 1
    assert sum(a != b for a, b in zip(invented, clean, strict=True)) == 1
    misspelt = [a for a, b in zip(json.loads(spoilt(world, share_typos=1)["arguments"])["items"], clean, strict=True) if a != b]
    assert len(misspelt) == 1
    assert sorted(misspelt[0]) in [sorted(world.item(int(i)).title) for i in clean]
    with pytest.raises(json.JSONDecodeError):
        json.loads(spoilt(world, share_malformed=1)["arguments"])


def test_knobs_depend_on_seed_and_messages_alone(world: Any) -> None:
    seeds = [spoilt(world, share_typos=0.5, share_short=0.5, seed=seed)["arguments"] for seed in range(12)]
    assert seeds == [spoilt(world, share_typos=0.5, share_short=0.5, seed=seed)["arguments"] for seed in range(12)]
    assert len(set(seeds)) > 2


def test_malformed_text_has_no_action(world: Any) -> None:
    task = [{"role": "user", "content": world.task(world.drama_history())}]
    assert "Action" not in ask(task, options=EmbeddedOptions(share_malformed=1))["content"]
