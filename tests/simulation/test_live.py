"""The view of a run: its facts as arithmetic, and what fits on which terminal. No Ray."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from support import Clock

from toolrec.llm.flow.budget import Budget
from toolrec.llm.flow.governor import FlowSnapshot
from toolrec.llm.prices import Price
from toolrec.records import Usage
from toolrec.simulation.monitor.live import (
    NUM_MARKS,
    LiveFacts,
    Picture,
    RunWatch,
    dollars,
    duration,
    line_of,
    rows_of,
    short,
)


def painted(facts: LiveFacts, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(Picture(facts))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


BUSY = LiveFacts(
    num_users=22_363,
    num_done=12_000,
    num_in_flight=2_000,
    ended={"finish": 11_000, "forced_finish": 900, "llm_failure": 80, "invalid_reply": 20},
    faults={"actor_lost": 3},
    elapsed_s=3725.0,
    users_per_s=95.5,
    flow=FlowSnapshot(
        in_flight=1_960,
        waiting=40,
        limit=1_960,
        cap=2_000,
        num_requests=50_000,
        num_calls=48_000,
        failures={"429": 1_500, "timeout": 400, "connection": 70, "malformed": 30},
        requests_per_s=391.4,
        tokens_per_s=612_345.0,
        latency_s=5.02,
        paused_s=75.0,
    ),
    usage=Usage(num_calls=48_000, prompt_tokens=74_000_000, cached_tokens=12_000_000, completion_tokens=3_100_000),
    cost_usd=12.961,
    budget_usd=40.0,
    budget_tokens=500_000_000,
    last_failure="user A1: llm_failure: no reply from http://127.0.0.1/v1 after 6 attempts in 31.2 s: HTTP 503",
)


def test_rate_and_time_left_are_those_of_this_session():
    clock = Clock()
    watch = RunWatch(num_users=1_000, earlier={"finish": 380, "llm_failure": 20}, clock=clock)
    for _ in range(64):
        watch.user_began()
    for user in range(50):
        clock.now_s += 0.2
        watch.user_left()
        watch.user_ended("budget" if user == 7 else "finish")
    facts = watch.facts()
    assert facts.num_done == 400 + 50
    assert facts.num_in_flight == 64 - 50
    assert facts.ended == {"finish": 380 + 49, "llm_failure": 20, "budget": 1}
    assert facts.elapsed_s == pytest.approx(50 * 0.2)
    assert facts.users_per_s == pytest.approx(50 / (50 * 0.2))
    assert facts.left_s == pytest.approx((1_000 - 450) / (50 / (50 * 0.2)))


def test_spend_and_budget_are_those_of_all_sessions():
    price = Price(model="m", input_usd=2.0, cached_input_usd=1.0, output_usd=8.0, checked="2026-01-01", source="made up")
    earlier = Usage(prompt_tokens=500_000, completion_tokens=100_000)
    watch = RunWatch(num_users=10, budget=Budget(max_usd=5.0, max_tokens=2_000_000, price=price, spent=earlier))
    assert watch.facts().cost_usd == pytest.approx(0.5 * 2.0 + 0.1 * 8.0)
    watch.see(FlowSnapshot(usage=Usage(prompt_tokens=400_000, cached_tokens=300_000)))
    assert watch.facts().cost_usd == pytest.approx(0.5 * 2.0 + 0.1 * 8.0 + 0.1 * 2.0 + 0.3 * 1.0)
    assert "900k in (300k cached), 100k out, of 2M allowed, $2.3000 of $5.0000" in watch.line()
    assert "cost     $2.3000 of $5.0000" in painted(watch.facts(), 80)


def test_a_price_that_is_not_known_is_no_cost_of_zero():
    watch = RunWatch(num_users=10)
    watch.see(FlowSnapshot(usage=Usage(prompt_tokens=400_000)))
    assert watch.facts().cost_usd is None
    assert "$" not in watch.line()
    assert "cost     the price is not known" in painted(watch.facts(), 80)


def test_the_rate_follows_a_run_that_becomes_slower():
    clock = Clock()
    watch = RunWatch(num_users=10**6, clock=clock)
    for wait_s, num_users in ((0.1, 10_000), (10.0, 2 * NUM_MARKS)):
        for _ in range(num_users):
            clock.now_s += wait_s
            watch.user_ended("finish")
    assert watch.facts().users_per_s == pytest.approx(1 / 10.0, rel=0.01)


def test_nothing_is_said_of_the_time_left_before_a_user_ended_and_after_the_last():
    clock = Clock()
    watch = RunWatch(num_users=1, clock=clock)
    clock.now_s += 5
    assert watch.facts().left_s is None
    assert "left" not in watch.line()
    watch.user_ended("finish")
    assert watch.facts().left_s is None
    assert watch.line() == "simulating: 1/1 users, 0.20 users/s, 5 s, 0 in flight; ended: finish: 1"


def test_the_line_says_all_of_it():
    assert line_of(BUSY) == (
        "simulating: 12000/22363 users, 95.50 users/s, 1 h 02 min, 1 min 49 s left, 2,000 in flight"
        "; ended: finish: 11,000, forced_finish: 900, llm_failure: 80, invalid_reply: 20"
        "; LLM: 391.4 calls/s, 1,960 of 1,960 in flight, 40 wait, 1 min 15 s paused, 5.02 s each"
        ", 612k tokens/s, 74M in (12M cached), 3.1M out, of 500M allowed, $12.96 of $40.00"
        "; no reply: 429: 1,500, timeout: 400, connection: 70, malformed: 30"
        "; faults: actor_lost: 3"
    )


def test_the_picture_says_all_of_it_at_120_columns():
    lines = painted(BUSY, 120)
    assert lines[0].split()[-4:] == ["12,000/22,363", "users", "53", "%"]
    for words in line_of(BUSY).partition("; ")[2].replace("; ", ", ").split(", "):
        text = words.removeprefix("ended: ").removeprefix("LLM: ").removeprefix("no reply: ").removeprefix("faults: ")
        assert any(text in line for line in lines), text


def test_the_bar_tells_what_is_done_without_colours():
    for done in (0, 250, 1_000):
        bar = painted(LiveFacts(num_users=1_000, num_done=done), 120)[0]
        assert bar.count("━") == 60 * done // 1_000
        assert bar.count("━") + bar.count("─") == 60


def test_what_does_not_fit_is_counted():
    [row] = [line for line in painted(BUSY, 60) if line.startswith("LLM")]
    assert row == "LLM      391.4 calls/s   1,960 of 1,960 in flight   +3"


def test_an_outage_comes_first():
    out = FlowSnapshot(pause_reason="outage", outage_s=12.3, paused_s=12.3)
    facts = LiveFacts(num_users=5, flow=out)
    assert "LLM: paused: outage for 12 s, " in line_of(facts)
    assert any(line.startswith("LLM      paused: outage for 12 s") for line in painted(facts, 80))


counts = st.integers(0, 10**7)
kinds = st.dictionaries(st.sampled_from(["finish", "llm_failure", "invalid_reply", "budget", "actor_lost", "429"]), counts)


@given(
    facts=st.builds(
        LiveFacts,
        num_users=st.integers(1, 10**7),
        num_done=counts,
        num_in_flight=counts,
        ended=kinds,
        faults=kinds,
        elapsed_s=st.floats(0, 1e7),
        users_per_s=st.none() | st.floats(0.001, 1e4),
        flow=st.none()
        | st.builds(
            FlowSnapshot,
            in_flight=counts,
            waiting=counts,
            limit=counts,
            failures=kinds,
            tokens_per_s=st.floats(0, 1e9),
            pause_reason=st.sampled_from(["", "outage"]),
            outage_s=st.floats(0, 1e6),
        ),
        usage=st.builds(Usage, prompt_tokens=st.integers(0, 10**13)),
        cost_usd=st.none() | st.floats(0, 1e6),
        last_failure=st.text(st.characters(exclude_categories=["C", "Z"]), max_size=600),
    ),
    width=st.integers(40, 200),
)
def test_the_picture_has_always_the_same_rows_and_none_is_too_wide(facts: LiveFacts, width: int):
    lines = painted(facts, width)
    assert len(lines) == 1 + len(rows_of(facts)) == 9
    assert max(cell_len(line) for line in lines) < width
    assert "\n" not in line_of(facts)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (3600, "1 h 00 min"), (90_061, "25 h 01 min")],
)
def test_durations_are_said_in_two_units(seconds: float, said: str):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0"),
        (950, "950"),
        (999.4, "999"),
        (999.6, "1k"),
        (12_345, "12.3k"),
        (999_600, "1M"),
        (4_560_000, "4.56M"),
        (7e12, "7e+03G"),
    ],
)
def test_counts_are_said_in_three_digits(count: float, said: str):
    assert short(count) == said


@pytest.mark.parametrize(
    ("amount", "said"), [(0.00004, "$0.0000"), (0.4127, "$0.4127"), (12.961, "$12.96"), (1234.5, "$1,234.50")]
)
def test_dollars(amount: float, said: str):
    assert dollars(amount) == said
