"""The gate: who is let through, what waits, what is told to the governor."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import Clock

from toolrec.llm import OpenAIChat
from toolrec.llm.flow.buckets import BURST_S
from toolrec.llm.flow.gate import CONNECTIONS_AT_ONCE, CONNECTIONS_PER_S, KEEP_ALIVE_S, Gate, keep_in_step
from toolrec.llm.flow.governor import Allowance, ClientReport
from toolrec.llm.flow.rate_headers import read_exhausted_s, read_span_s
from toolrec.records import Usage
from toolrec.util.deadline import deadline

ASK = [{"role": "user", "content": "hello"}]


async def enter(gate: Gate, size_bytes: int = 100) -> asyncio.Task[Any]:
    """A request that stays in flight until its task is cancelled; returns once it is in or waits."""

    async def stay() -> None:
        async with gate.request(size_bytes):
            await asyncio.Event().wait()

    task = asyncio.create_task(stay())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_connections_are_opened_little_by_little_and_used_again_at_once():
    clock = Clock()
    gate = Gate(limit=5_000, clock=clock)
    tasks = [await enter(gate) for _ in range(CONNECTIONS_AT_ONCE + 100)]
    assert (gate.report().in_flight, gate.report().waiting) == (CONNECTIONS_AT_ONCE, 100)
    clock.now_s += 50 / CONNECTIONS_PER_S
    gate.apply(Allowance(limit=5_000))
    assert gate.report().waiting == 50
    clock.now_s += 50 / CONNECTIONS_PER_S
    gate.apply(Allowance(limit=5_000))
    assert gate.report().waiting == 0
    await end(*tasks)
    again = [await enter(gate) for _ in range(len(tasks))]
    assert (gate.report().in_flight, gate.report().waiting) == (len(tasks), 0)
    await end(*again)


@pytest.mark.parametrize(("idle_s", "begun"), [(KEEP_ALIVE_S / 2 - 0.1, 400), (KEEP_ALIVE_S, CONNECTIONS_AT_ONCE)])
async def test_connections_that_closed_in_a_hold_are_opened_little_by_little_again(idle_s: float, begun: int):
    clock = Clock()
    gate = Gate(limit=5_000, clock=clock)
    tasks = [await enter(gate) for _ in range(400)]
    clock.now_s += 0.5
    gate.apply(Allowance(limit=5_000))
    clock.now_s += 60.0  # requests that take long keep their connections, and leave them behind
    assert gate.report().in_flight == 400
    await end(*tasks)
    gate.hold(idle_s)
    again = [await enter(gate) for _ in range(400)]
    assert gate.report().waiting == 400
    clock.now_s += idle_s
    gate.apply(Allowance(limit=5_000))
    assert gate.report().in_flight == begun
    await end(*again)


async def test_the_clock_lets_the_next_connections_be_opened():
    gate = Gate(limit=5_000)
    tasks = [await enter(gate) for _ in range(CONNECTIONS_AT_ONCE + 20)]
    async with asyncio.timeout(20):
        while gate.report().waiting:
            await asyncio.sleep(0.001)
    await end(*tasks)


async def test_nobody_comes_through_before_the_first_allowance():
    gate = Gate(limit=None)
    task = await enter(gate)
    report = gate.report()
    assert (report.in_flight, report.waiting) == (0, 1)
    gate.apply(Allowance(limit=3))
    assert (gate.report().in_flight, gate.report().waiting) == (1, 0)
    await end(task)
    assert gate.report().in_flight == 0


async def test_turns_come_in_order_and_a_cancelled_one_is_passed_over():
    gate = Gate(limit=1)
    order: list[int] = []

    async def call(number: int) -> None:
        async with gate.request(10):
            order.append(number)

    holder = await enter(gate)
    calls = [asyncio.create_task(call(number)) for number in range(4)]
    await asyncio.sleep(0)
    calls[1].cancel()
    await end(holder)
    await asyncio.gather(*calls, return_exceptions=True)
    assert order == [0, 2, 3]


async def test_a_turn_that_is_cancelled_at_the_very_moment_goes_to_the_next():
    gate = Gate(limit=1)
    holder, first, second = [await enter(gate) for _ in range(3)]
    holder.cancel()
    await asyncio.sleep(0)  # the holder leaves: the first has its turn, and is cancelled before it wakes
    first.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    report = gate.report()
    assert (report.in_flight, report.waiting) == (1, 0)
    await end(first, second)
    assert gate.totals.failures == {"cancelled": 2}


async def test_a_turn_that_is_cancelled_before_the_holder_leaves_takes_no_slot_with_it():
    gate = Gate(limit=1)
    is_over = asyncio.Event()

    async def hold() -> None:
        async with gate.request(10) as request:
            await is_over.wait()
            request.succeeded(Usage())

    holder = asyncio.create_task(hold())
    await asyncio.sleep(0)
    first, second = [await enter(gate) for _ in range(2)]
    is_over.set()  # the holder wakes first, and finds the turn cancelled of one that has not woken yet
    first.cancel()
    await asyncio.gather(holder, first, return_exceptions=True)
    assert holder.exception() is None
    report = gate.report()
    assert (report.in_flight, report.waiting) == (1, 0)
    await end(second)
    assert gate.report().in_flight == 0
    assert gate.totals.frozen().num_calls == 1


async def test_a_lease_is_spent_and_what_is_left_goes_back():
    gate = Gate(limit=None)
    cost = gate.estimate_tokens(100)
    gate.apply(Allowance(limit=10, requests=3.0, tokens=2.5 * cost))
    tasks = [await enter(gate) for _ in range(4)]
    assert gate.wants_exchange.is_set()
    report = gate.report()
    assert (report.in_flight, report.waiting) == (2, 2)
    assert report.returned_requests == pytest.approx(1.0)
    assert report.returned_tokens == pytest.approx(0.5 * cost)
    assert report.head_tokens == pytest.approx(cost)
    gate.apply(Allowance(limit=10, requests=1.0, tokens=cost))
    assert gate.report().in_flight == 3
    await end(*tasks)


async def test_a_reply_that_costs_more_than_was_thought_is_owed():
    gate = Gate(limit=None)
    gate.apply(Allowance(limit=1, requests=5.0, tokens=10_000.0))
    cost = gate.estimate_tokens(400)
    async with gate.request(400) as request:
        request.succeeded(Usage(num_calls=1, prompt_tokens=9_000, completion_tokens=3_000))
    assert gate.report().returned_tokens == pytest.approx(10_000 - cost - (12_000 - cost))
    assert gate.estimate_tokens(400) > cost


async def test_an_answer_without_a_reply_owes_what_it_cost():
    gate = Gate(limit=1)
    gate.apply(Allowance(limit=1, tokens=1_000))
    request = gate.request(100)
    async with request:
        request.failed("malformed", "other", Usage(prompt_tokens=900))
    assert gate.totals.frozen().usage.prompt_tokens == 900
    assert gate.report().returned_tokens == pytest.approx(1_000 - 900)


async def test_without_the_governor_the_share_of_the_rate_goes_on():
    clock = Clock()
    gate = Gate(limit=None, clock=clock)
    gate.apply(Allowance(limit=10, requests=0.0, tokens=None, requests_per_s=4.0))
    tasks = [await enter(gate) for _ in range(5)]
    assert gate.report().in_flight == 0
    clock.now_s += 0.5
    gate.go_on_alone(gate.report())
    assert gate.report().in_flight == 2
    clock.now_s += 3600.0  # no more than a second's worth, however long it is away
    gate.go_on_alone(ClientReport())
    assert gate.report().in_flight == 5
    await end(*tasks)


async def test_without_the_governor_no_more_is_saved_up_than_it_would_lend():
    clock = Clock()
    gate = Gate(limit=None, clock=clock)
    cost = gate.estimate_tokens(100)
    gate.apply(Allowance(limit=1000, requests=0.0, tokens=0.0, requests_per_s=4.0, tokens_per_s=3 * cost))
    for _ in range(240):
        clock.now_s += 0.25
        gate.go_on_alone(gate.report())
    tasks = [await enter(gate) for _ in range(50)]
    assert gate.report().in_flight == 3
    await end(*tasks)
    gate.apply(Allowance(limit=1000, requests=0.0, tokens=1e9, requests_per_s=4.0))
    for _ in range(240):
        clock.now_s += 0.25
        gate.go_on_alone(gate.report())
    tasks = [await enter(gate) for _ in range(50)]
    assert gate.report().in_flight == 4 * BURST_S + 1
    await end(*tasks)


async def test_a_lease_beyond_the_share_is_kept_without_the_governor():
    gate = Gate(limit=None)
    gate.apply(Allowance(limit=10, requests=7.0, tokens=None, requests_per_s=0.0))
    gate.go_on_alone(gate.report())
    assert gate.report().returned_requests == 7.0


async def test_what_was_to_be_told_is_told_again_where_the_governor_was_away():
    gate = Gate(limit=4)
    async with gate.request(10) as request:
        request.failed("503", "refused")
    gate.hold(1.0)
    lost = gate.report()
    gate.go_on_alone(lost)
    again = gate.report()
    assert (again.outcomes, again.hold_s) == (lost.outcomes, lost.hold_s)
    assert again.outcomes.num_refused == 1


async def test_enough_failures_in_a_row_close_it_before_anyone_is_asked():
    gate = Gate(limit=None)
    gate.apply(Allowance(limit=10, trips_after=3))
    for _ in range(3):
        assert not gate.is_down
        async with gate.request(10) as request:
            request.failed("connection", "down")
    assert gate.is_down
    assert gate.wants_exchange.is_set()
    task = await enter(gate)
    assert gate.report().waiting == 1
    gate.apply(Allowance(limit=10, trips_after=3, is_out=True))
    assert gate.report().waiting == 1
    gate.apply(Allowance(limit=10, trips_after=3, is_out=True, probes=1))
    assert gate.report().in_flight == 1
    await end(task)
    assert gate.report().has_probe_failed


async def test_a_probe_that_nobody_needs_is_given_back():
    gate = Gate(limit=None)
    gate.apply(Allowance(limit=10, is_out=True, probes=1))
    assert gate.report().has_probe_failed


async def test_one_good_answer_opens_what_failures_had_nearly_closed():
    gate = Gate(limit=None)
    gate.apply(Allowance(limit=10, trips_after=2))
    for kind in ("down", "good", "down"):
        async with gate.request(10) as request:
            if kind == "good":
                request.succeeded(Usage())
            else:
                request.failed("500", "down")
    assert not gate.is_down


async def test_the_wait_at_the_gate_is_not_held_against_the_user():
    gate = Gate(limit=1)
    holder = await enter(gate)

    async def user() -> float:
        async with deadline(0.05) as time_of_user, gate.request(10) as request:
            request.succeeded(Usage())
        return time_of_user.uncounted_s

    running = asyncio.create_task(user())
    await asyncio.sleep(0.15)
    await end(holder)
    assert await running >= 0.1


async def test_an_endpoint_with_nothing_left_holds_every_call_of_every_client(serve: Any, quick: Any, steps: Any):
    spent = {**steps.reply(), "headers": {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "250ms"}}
    server = await serve(spent, steps.reply())
    async with OpenAIChat(quick(server.base_url)) as llm:
        await llm.complete(ASK)
        assert 0.2 < llm.gate.report().hold_s <= 0.25
        started_s = time.monotonic()
        await asyncio.gather(llm.complete(ASK), llm.complete(ASK))
        assert time.monotonic() - started_s >= 0.2
        assert llm.counts["rate_limit_hold"] == 1


async def test_retry_after_holds_everyone_only_where_most_answers_are_refusals(serve: Any, quick: Any, steps: Any):
    refused = steps.error(429, retry_after="0.01")
    server = await serve(*([refused] * 12), steps.reply())
    async with OpenAIChat(quick(server.base_url, max_attempts=20)) as llm:
        held = []
        report = llm.gate.report
        for _ in range(2):
            await llm.complete(ASK)
            held.append(report().hold_s)
    assert held[0] == pytest.approx(0.01)
    assert held[1] == 0.0


async def test_every_request_is_counted_as_what_it_was(serve: Any, quick: Any, steps: Any):
    refusal = steps.error(400, "no", code="unsupported_value", param="temperature")
    script = [refusal, steps.error(429), steps.error(503), {"fault": "reset"}, {"status": 200, "raw": "{"}]
    script += [{"status": 200, "json": {"error": {"message": "busy", "code": 503}}}, steps.reply(usage={"prompt_tokens": 5})]
    server = await serve(*script, steps.error(401), steps.error(400, "x", code="context_length_exceeded"), {"fault": "hang"})
    async with OpenAIChat(quick(server.base_url, temperature=0.1, max_attempts=8, timeout_s=0.3)) as llm:
        assert (await llm.complete(ASK)).usage.num_attempts == 7
        for _ in range(2):
            with pytest.raises(Exception, match=r"refused|do not fit"):
                await llm.complete(ASK)
        hanging = asyncio.create_task(llm.complete(ASK))
        while len(server.requests) < 10:
            await asyncio.sleep(0.01)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        totals = llm.gate.totals.frozen()
    assert totals.num_requests == len(server.requests) == 10
    assert totals.num_calls == 1
    assert totals.usage.prompt_tokens == 5
    assert totals.failures == {
        "parameter_refused": 1,
        "429": 1,
        "503": 2,
        "connection": 1,
        "malformed": 1,
        "refused": 1,
        "context_too_long": 1,
        "cancelled": 1,
    }


async def test_malformed_replies_have_a_cap_of_their_own(serve: Any, quick: Any, steps: Any):
    server = await serve({"status": 200, "raw": "{"})
    async with OpenAIChat(quick(server.base_url, max_attempts=9, max_malformed=2)) as llm:
        with pytest.raises(Exception, match="after 2 attempts"):
            await llm.complete(ASK)
    assert len(server.requests) == 2


async def test_keeping_in_step_survives_a_governor_that_is_away():
    gate = Gate(limit=None)
    asked = asyncio.Event()
    is_away = True

    async def exchange(report: ClientReport) -> Allowance:
        if is_away:
            asked.set()
            raise ConnectionError
        return Allowance(limit=1)

    in_step = asyncio.create_task(keep_in_step(gate, exchange))
    await asyncio.wait_for(asked.wait(), 5)
    is_away = False
    async with asyncio.timeout(5):
        async with gate.request(10) as request:
            request.succeeded(Usage())
    await end(in_step)


async def test_keeping_in_step_goes_on_after_an_error_of_ours_and_tells_it(caplog: pytest.LogCaptureFixture):
    gate = Gate(limit=None)
    num_asked = 0

    async def exchange(report: ClientReport) -> Allowance:
        nonlocal num_asked
        num_asked += 1
        if num_asked <= 2:
            raise ValueError("a bug of ours")
        return Allowance(limit=1)

    in_step = asyncio.create_task(keep_in_step(gate, exchange))
    async with asyncio.timeout(5):
        async with gate.request(10) as request:
            request.succeeded(Usage())
    await end(in_step)
    assert caplog.text.count("ValueError: a bug of ours") == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1.5", 1.5),
        ("6m0s", 360),
        ("1h2m3s", 3723),
        ("120ms", 0.12),
        ("1m0.5s", 60.5),
        ("", 0),
        ("soon", 0),
        ("-3", 0),
        ("nan", 0),
    ],
)
def test_spans(text: str, seconds: float):
    assert read_span_s(text) == pytest.approx(seconds)


def test_dates_and_seconds_since_the_epoch():
    ahead = datetime.now(UTC) + timedelta(seconds=30)
    for text in (ahead.isoformat(), ahead.strftime("%Y-%m-%dT%H:%M:%SZ"), str(ahead.timestamp())):
        assert 28 < read_span_s(text) <= 30


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "9s"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s"}, 9.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2s", "x-ratelimit-remaining-requests": "1"}, 2.0),
        ({"x-ratelimit-remaining-requests": "0"}, 0.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "4"}, 4.0),
    ],
)
def test_headers_that_say_that_nothing_is_left(headers: dict[str, str], seconds: float):
    assert read_exhausted_s(headers) == pytest.approx(seconds)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_header_is_read_or_left(remaining: str, reset: str):
    headers = {"x-ratelimit-remaining-requests": remaining, "x-ratelimit-reset-requests": reset}
    assert 0 <= read_exhausted_s(headers) < 1e7
