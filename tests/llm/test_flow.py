"""The governor with clients in one process, on a simulated clock."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Clock

from toolrec.errors import ConfigError
from toolrec.llm.flow.buckets import BURST_S
from toolrec.llm.flow.budget import Budget
from toolrec.llm.flow.governor import CLIENT_TIMEOUT_S, ClientReport, FlowSettings, FlowTotals, Governor
from toolrec.llm.flow.outcomes import Outcomes
from toolrec.records import Usage


@dataclass
class Spender:
    """A client that spends its lease whenever it is told to, as a gate does."""

    name: str
    cost: float = 1.0
    waiting: deque[float] = field(default_factory=deque)
    requests: float = 0.0
    tokens: float = 0.0
    limit: int = 0
    in_flight: int = 0

    def exchange(self, governor: Governor) -> None:
        report = ClientReport(
            in_flight=self.in_flight,
            waiting=len(self.waiting),
            ask_requests=len(self.waiting),
            ask_tokens=sum(self.waiting),
            head_tokens=self.waiting[0] if self.waiting else 0.0,
            returned_requests=self.requests,
            returned_tokens=self.tokens,
        )
        self.requests = self.tokens = 0.0
        allowance = governor.exchange(self.name, report)
        self.requests, self.tokens, self.limit = allowance.requests or 0.0, allowance.tokens or 0.0, allowance.limit

    def spend(self) -> list[float]:
        begun = []
        while self.waiting and self.requests >= 1.0 and self.tokens >= self.waiting[0]:
            begun.append(self.waiting.popleft())
            self.requests -= 1.0
            self.tokens -= begun[-1]
        return begun


steps = st.lists(
    st.tuples(
        st.integers(0, 7), st.sampled_from(["exchange", "spend", "call", "call"]), st.floats(0.0, 0.4), st.integers(1, 900)
    ),
    min_size=1,
    max_size=300,
)


@settings(deadline=None)
@given(steps=steps, requests=st.floats(6, 6000), tokens=st.floats(600, 600_000))
def test_clients_together_never_spend_more_than_the_buckets_hold(steps, requests: float, tokens: float) -> None:
    clock = Clock()
    governor = Governor(FlowSettings(requests_per_minute=requests, tokens_per_minute=tokens), ceiling=1000, clock=clock)
    clients = [Spender(f"m{i}") for i in range(8)]
    begun: list[tuple[float, float]] = []
    for number, what, wait_s, cost in steps:
        clock.now_s += wait_s
        client = clients[number]
        if what == "call":
            client.waiting.append(float(cost))
        elif what == "exchange":
            client.exchange(governor)
        begun += [(clock.now_s, spent) for spent in client.spend()]
    largest = max((cost for _, cost in begun), default=0.0)
    seen = max(cost for *_, cost in steps)
    for i, (from_s, _) in enumerate(begun):
        num_requests = num_tokens = 0.0
        for until_s, cost in begun[i:]:
            num_requests += 1
            num_tokens += cost
            span_s = until_s - from_s + BURST_S
            assert num_requests <= requests / 60 * span_s + 1 + 1e-6
            assert num_tokens <= tokens / 60 * span_s + max(largest, seen) + 1e-6


@pytest.mark.parametrize("per_minute", [30, 600, 30_000])
def test_the_rate_is_used_up(per_minute: int) -> None:
    clock = Clock()
    governor = Governor(FlowSettings(requests_per_minute=per_minute), ceiling=1000, clock=clock)
    clients = [Spender(f"m{i}") for i in range(5)]
    num_begun = 0
    for tick in range(20 * 60):
        clock.now_s += 0.05
        for client in clients:
            client.waiting.extend([0.0] * (1000 - len(client.waiting)))
            if tick % 5 == 0 or client.requests < 1:
                client.exchange(governor)
            num_begun += len(client.spend())
    assert 0.95 * per_minute <= num_begun <= per_minute * (1 + BURST_S / 60) + 1


def test_a_request_larger_than_a_seconds_worth_gets_its_turn_among_small_ones() -> None:
    clock = Clock()
    governor = Governor(FlowSettings(tokens_per_minute=600), ceiling=1000, clock=clock)  # 10 a second
    big, *small = [Spender(f"m{i}") for i in range(5)]
    big.waiting.append(200.0)
    for _ in range(20 * 30):
        clock.now_s += 0.05
        for client in [*small, big]:
            client.requests = 1e9
            if client is not big and not client.waiting:
                client.waiting.append(1.0)
            client.exchange(governor)
            client.requests = 1e9
            client.spend()
    assert not big.waiting


@given(
    limit=st.integers(1, 300),
    changes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100), st.floats(0, 0.5)), min_size=1, max_size=150),
)
@settings(deadline=None)
def test_clients_together_never_have_more_in_flight_than_the_limit(limit: int, changes) -> None:
    clock = Clock()
    governor = Governor(FlowSettings(llm_concurrency=limit), ceiling=300, clock=clock)
    clients = [Spender(f"m{i}") for i in range(6)]
    for number, demand, wait_s in changes:
        clock.now_s += wait_s
        client = clients[number]
        client.waiting = deque([0.0] * demand)
        client.exchange(governor)
        client.in_flight = min(demand, max(client.limit, 0)) if demand >= client.in_flight else demand
        assert sum(other.in_flight for other in clients) <= limit


def test_every_client_gets_its_turn_where_there_are_fewer_slots_than_clients() -> None:
    clock = Clock()
    governor = Governor(FlowSettings(llm_concurrency=1), ceiling=100, clock=clock)
    clients = [Spender(f"m{i}", waiting=deque([0.0] * 10)) for i in range(3)]
    served: set[str] = set()
    for _ in range(100):
        clock.now_s += 0.25
        for client in clients:
            client.in_flight = 0
            client.exchange(governor)
            if client.limit:
                served.add(client.name)
    assert served == {"m0", "m1", "m2"}


def test_what_a_lost_client_held_goes_to_the_others() -> None:
    clock = Clock()
    governor = Governor(FlowSettings(llm_concurrency=10), ceiling=10, clock=clock)
    lost, other = Spender("lost", in_flight=10), Spender("other", waiting=deque([0.0] * 10))
    lost.exchange(governor)
    other.exchange(governor)
    assert other.limit == 0
    clock.now_s += CLIENT_TIMEOUT_S + 0.1
    other.exchange(governor)
    assert other.limit == 10


def test_totals_survive_clients_and_governors() -> None:
    clock = Clock()
    governor = Governor(FlowSettings(), ceiling=10, clock=clock)
    totals = FlowTotals(num_requests=3, num_calls=2, usage=Usage(num_calls=2, prompt_tokens=50), failures={"429": 1})
    for _ in range(2):  # a report that comes twice changes nothing
        governor.exchange("a", ClientReport(totals=totals))
    governor.exchange("b", ClientReport(totals=FlowTotals(num_requests=1, num_calls=1)))
    before = governor.snapshot()
    assert (before.num_requests, before.num_calls, before.usage.prompt_tokens, before.failures) == (4, 3, 50, {"429": 1})
    again = Governor(FlowSettings(), ceiling=10, clock=clock)
    again.exchange("b", ClientReport(totals=FlowTotals(num_requests=2, num_calls=2)))
    again.restore(before.clients)
    after = again.snapshot()
    assert (after.num_requests, after.num_calls) == (5, 4)
    assert after.governor != before.governor


def test_what_says_nothing_against_the_endpoint_is_no_failure_of_it() -> None:
    kinds = {"429": 4, "refused": 1, "cancelled": 3, "context_too_long": 2, "parameter_refused": 1}
    assert FlowTotals(failures=kinds).num_failures == 5


def down(count: int) -> ClientReport:
    return ClientReport(waiting=5, outcomes=Outcomes(num_down=count, num_down_in_a_row=count))


def test_shares_of_the_rate_are_one_whole_also_where_nobody_waits() -> None:
    governor = Governor(FlowSettings(requests_per_minute=600, tokens_per_minute=6000), ceiling=64, clock=Clock())
    for _ in range(2):
        allowances = [governor.exchange(name, ClientReport()) for name in "abcdefgh"]
    assert sum(allowance.requests_per_s or 0.0 for allowance in allowances) == pytest.approx(10.0)
    assert sum(allowance.tokens_per_s or 0.0 for allowance in allowances) == pytest.approx(100.0)


def test_under_a_budget_nothing_is_begun_that_the_governor_did_not_lend() -> None:
    budget = Budget(max_tokens=1000)
    governor = Governor(FlowSettings(requests_per_minute=600), ceiling=64, budget=budget, clock=Clock())
    assert governor.exchange("a", ClientReport(waiting=3, ask_requests=3)).requests_per_s == 0.0


def test_a_restarted_governor_lends_nothing_before_it_knows_what_is_under_way_and_spent() -> None:
    clock = Clock()
    flow = FlowSettings(llm_concurrency=8, requests_per_minute=6000, tokens_per_minute=600_000)
    budget = Budget(max_tokens=100_000)
    governor = Governor(flow, ceiling=64, budget=budget, is_restarted=True, clock=clock)
    asks = ClientReport(in_flight=4, waiting=100, ask_requests=100, ask_tokens=1e4, head_tokens=100)
    for _ in range(3):
        clock.now_s += 0.1
        first = governor.exchange("a", asks)
        assert (first.limit, first.requests, first.tokens) == (4, 0.0, 0.0)
    spent = FlowTotals(num_requests=1000, num_calls=1000, usage=Usage(num_calls=1000, num_attempts=1000, prompt_tokens=100_000))
    governor.restore({"gone": spent})
    assert governor.exchange("a", asks).limit == 4  # the others have not had their interval yet
    clock.now_s += 0.25
    other = governor.exchange("b", asks)
    assert (other.limit, other.requests) == (4, 0)
    assert governor.exchange("a", asks).limit == 4
    assert governor.snapshot().is_budget_spent


@pytest.mark.parametrize(("waits_s", "limit"), [(CLIENT_TIMEOUT_S - 0.1, 0), (CLIENT_TIMEOUT_S, 8)])
def test_a_restarted_governor_that_nobody_tells_anything_lends_when_all_must_have_reported(waits_s: float, limit: int) -> None:
    clock = Clock()
    governor = Governor(FlowSettings(llm_concurrency=8), ceiling=64, is_restarted=True, clock=clock)
    clock.now_s += waits_s
    allowance = governor.exchange("a", ClientReport(waiting=100, ask_requests=100))
    assert (allowance.limit, allowance.requests) == (limit, None)


def test_everyone_holds_when_everything_fails_and_one_tries_again() -> None:
    clock = Clock()
    governor = Governor(FlowSettings(), ceiling=100, clock=clock, draw=lambda: 1.0)
    assert not governor.exchange("a", down(12)).is_out
    assert governor.exchange("b", down(8)).is_out
    assert governor.exchange("a", ClientReport(waiting=5)).is_out
    assert governor.snapshot().pause_reason == "outage"
    clock.now_s += 1.01
    assert governor.exchange("a", ClientReport(waiting=5)).probes == 1
    assert governor.exchange("b", ClientReport(waiting=5)).probes == 0
    failed = ClientReport(waiting=5, has_probe_failed=True, outcomes=Outcomes(num_down=1, num_down_in_a_row=1))
    assert governor.exchange("a", failed).probes == 0
    clock.now_s += 1.01
    assert governor.exchange("b", ClientReport(waiting=5)).probes == 0  # the second wait is twice as long
    clock.now_s += 1.0
    assert governor.exchange("b", ClientReport(waiting=5)).probes == 1
    assert governor.snapshot().outage_s == pytest.approx(1.01 + 1.01 + 1.0)
    back = governor.exchange("b", ClientReport(waiting=5, outcomes=Outcomes(num_good=1, latency_s=0.1)))
    assert not back.is_out
    seen = governor.snapshot()
    assert (seen.outage_s, seen.num_outages, seen.pause_reason) == (0.0, 1, "")
    assert seen.paused_s == pytest.approx(3.02)


def test_a_lost_client_takes_no_probe_with_it() -> None:
    clock = Clock()
    governor = Governor(FlowSettings(), ceiling=100, clock=clock)
    governor.exchange("a", down(20))
    clock.now_s += 1.01
    assert governor.exchange("a", ClientReport(waiting=5)).probes == 1
    clock.now_s += CLIENT_TIMEOUT_S + 0.1
    assert governor.exchange("b", ClientReport(waiting=5)).probes == 1


def test_a_lost_allowance_takes_no_probe_with_it() -> None:
    clock = Clock()
    governor = Governor(FlowSettings(), ceiling=100, clock=clock)
    governor.exchange("a", down(20))
    clock.now_s += 1.01
    assert governor.exchange("a", ClientReport(waiting=5)).probes == 1  # this answer never arrives
    assert governor.exchange("b", ClientReport(waiting=5)).probes == 0
    assert governor.exchange("a", ClientReport(waiting=5, in_flight=1)).probes == 0  # it may be under way
    assert governor.exchange("a", ClientReport(waiting=5)).probes == 1


def test_one_good_answer_among_failures_is_no_outage() -> None:
    clock = Clock()
    governor = Governor(FlowSettings(), ceiling=100, clock=clock)
    for _ in range(50):
        mixed = Outcomes(num_down=15, num_good=1, latency_s=0.1) + Outcomes(num_down=4, num_down_in_a_row=4)
        assert not governor.exchange("a", ClientReport(outcomes=mixed)).is_out


def test_the_endpoints_word_holds_everyone() -> None:
    clock = Clock()
    governor = Governor(FlowSettings(), ceiling=100, clock=clock)
    governor.exchange("a", ClientReport(hold_s=3.0))
    assert governor.exchange("b", ClientReport()).hold_s == pytest.approx(3.0)
    assert governor.snapshot().pause_reason == "rate limit"
    clock.now_s += 5.0
    assert governor.exchange("b", ClientReport()).hold_s == 0.0
    assert governor.snapshot().paused_s == pytest.approx(3.0)


def test_retuning_takes_effect_with_the_next_exchange() -> None:
    clock = Clock()
    governor = Governor(FlowSettings(), ceiling=100, clock=clock)
    asks = ClientReport(waiting=50, ask_requests=50)
    assert governor.exchange("a", asks).requests is None
    governor.retune(FlowSettings(requests_per_minute=60, llm_concurrency=7))
    clock.now_s += 1.0
    after = governor.exchange("a", asks)
    assert (after.requests, after.limit) == (1.0, 7)
    governor.retune(FlowSettings(is_paused=True))
    clock.now_s += 1.0
    after = governor.exchange("a", asks)
    assert (after.requests, after.limit, after.is_paused) == (None, 50 + (100 - 50) // 2, True)
    assert governor.snapshot().pause_reason == "by hand"


def run_against(accepts, cap: int, seconds: float, latency_s: float, seed: int = 0) -> list[tuple[float, int, int]]:
    """A closed loop of `cap` calls over two clients against an endpoint that `accepts(in_flight, now_s)`.

    Returns:
        (seconds, limit, accepted in flight) at every exchange.
    """
    clock = Clock()
    draw = random.Random(seed)
    governor = Governor(FlowSettings(), ceiling=cap, clock=clock, draw=draw.random)
    names = ["a", "b"]
    waiting = dict.fromkeys(names, cap // 2)
    flying: dict[str, list[float]] = {name: [] for name in names}
    limits = dict.fromkeys(names, 0)
    seen = []
    began_s = clock.now_s
    while clock.now_s - began_s < seconds:
        clock.now_s += 0.25
        for name in names:
            done = [end_s for end_s in flying[name] if end_s <= clock.now_s]
            flying[name] = [end_s for end_s in flying[name] if end_s > clock.now_s]
            waiting[name] += len(done)
            outcomes = Outcomes(num_good=len(done), latency_s=latency_s * len(done))
            for _ in range(min(waiting[name], max(limits[name] - len(flying[name]), 0))):
                if accepts(sum(map(len, flying.values())), clock.now_s - began_s):
                    waiting[name] -= 1
                    flying[name].append(clock.now_s + latency_s * draw.uniform(0.9, 1.1))
                else:
                    outcomes += Outcomes(num_refused=1, num_down=1, num_down_in_a_row=1, refusal_latency_s=0.05)
            report = ClientReport(in_flight=len(flying[name]), waiting=waiting[name], outcomes=outcomes)
            limits[name] = governor.exchange(name, report).limit
            seen.append((clock.now_s - began_s, governor.snapshot().limit, sum(map(len, flying.values()))))
    return seen


def test_an_endpoint_that_refuses_nothing_is_used_in_full_from_the_first_round_trip() -> None:
    seen = run_against(lambda in_flight, now_s: True, cap=2000, seconds=30, latency_s=5.0)
    assert all(in_flight >= 1980 for now_s, _, in_flight in seen if now_s > 1.0)


def test_the_limit_finds_what_the_endpoint_takes_and_finds_more_when_there_is_more() -> None:
    seen = run_against(lambda in_flight, now_s: in_flight < (100 if now_s < 60 else 400), cap=1000, seconds=120, latency_s=1.0)
    before = [limit for now_s, limit, _ in seen if 20 < now_s < 60]
    assert min(before) >= 40
    assert max(before) <= 200
    after = [in_flight for now_s, _, in_flight in seen if now_s > 90]
    assert sum(after) / len(after) > 0.6 * 400


def test_an_endpoint_that_refuses_a_share_of_everything_is_not_starved() -> None:
    draw = random.Random(1)
    seen = run_against(lambda in_flight, now_s: draw.random() > 0.3, cap=64, seconds=120, latency_s=1.0)
    assert min(limit for _, limit, _ in seen) >= 16


@pytest.mark.parametrize("values", [{"requests_per_minute": 0}, {"tokens_per_minute": float("nan")}, {"llm_concurrency": 0}])
def test_bad_limits_are_refused(values) -> None:
    with pytest.raises(ConfigError):
        FlowSettings(**values)
