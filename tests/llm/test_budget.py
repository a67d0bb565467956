"""Budgets: what is affordable, and clients of a run that spend one up on a simulated clock."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Clock

from toolrec.errors import ConfigError
from toolrec.llm.flow.budget import Budget
from toolrec.llm.flow.governor import ClientReport, FlowSettings, FlowSnapshot, FlowTotals, Governor
from toolrec.llm.prices import Price
from toolrec.records import Usage

PRICE = Price(model="m", input_usd=1.0, cached_input_usd=0.1, output_usd=10.0, checked="2026-01-31", source="made up")


def spent(calls: int, prompt_tokens: int, completion_tokens: int = 0) -> Usage:
    return Usage(num_calls=calls, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


def test_without_a_cap_everything_is_affordable():
    assert Budget().affordable(spent(10, 10**9)) is None


def test_one_request_goes_first_and_tells_what_they_cost():
    assert Budget(max_tokens=1_000).affordable(Usage()) == 1
    assert Budget(max_tokens=1_000).affordable(spent(2, 150, 50)) == (1_000 - 200) // 100


def test_what_earlier_sessions_spent_counts_and_stored_replies_do_not():
    before = spent(4, 400)
    budget = Budget(max_tokens=1_000, spent=before + Usage(num_calls=7, num_stored_replies=7, saved_prompt_tokens=10**6))
    assert budget.affordable(Usage()) == (1_000 - 400) // 100
    assert budget.affordable(spent(6, 600)) == 0
    assert budget.affordable(spent(6, 599)) == 1


def test_replies_without_usage_count_at_the_mean():
    assert Budget(max_tokens=1_000).affordable(spent(4, 300), num_unreported=1) == (1_000 - 400) // 100
    assert Budget(max_usd=0.001, price=PRICE).affordable(spent(10, 500), num_unreported=5) == 0


def test_where_no_usage_is_reported_nothing_is_affordable_under_a_cap():
    for budget in (Budget(max_tokens=10**6), Budget(max_usd=1.0, price=PRICE)):
        assert budget.affordable(spent(3, 0), num_unreported=3) == budget.affordable(spent(3, 0)) == 0
        # Another session tries again with one request.
        assert budget.replaced(spent=spent(3, 0)).affordable(Usage()) == 1
    assert Budget().affordable(spent(3, 0), num_unreported=3) is None


def test_a_price_of_nothing_has_no_end():
    free = replace(PRICE, input_usd=0.0, cached_input_usd=0.0, output_usd=0.0)
    assert Budget(max_usd=1.0, price=free).affordable(spent(10, 1_000)) == 10**9


def test_an_endpoint_without_usage_is_asked_once():
    clock = Clock()
    governor = Governor(FlowSettings(), ceiling=8, budget=Budget(max_tokens=10**6), clock=clock)
    report = ClientReport(waiting=5, ask_requests=5)
    assert governor.exchange("m", report).requests == 1
    totals = FlowTotals(num_requests=1, num_calls=1, usage=spent(1, 0), counts={"usage_missing": 1})
    assert governor.exchange("m", replace(report, totals=totals)).requests == 0
    assert governor.snapshot().is_budget_spent


def test_dollars_and_tokens_both_hold():
    usage = spent(10, 1_000, 100)  # a request costs 110 tokens, and (100 * 1 + 10 * 10) / 1e6 dollars
    assert Budget(max_usd=0.004, price=PRICE).affordable(usage) == 10
    assert Budget(max_usd=0.004, max_tokens=1_320, price=PRICE).affordable(usage) == 2
    assert Budget(max_usd=0.004, max_tokens=1_320, price=PRICE).state(usage) == "$0.0020 of $0.0040, 1,100 of 1,320 tokens"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"max_usd": 0.0, "price": PRICE}, "above 0"),
        ({"max_usd": float("nan"), "price": PRICE}, "above 0"),
        ({"max_tokens": 0}, "1 or more"),
        ({"max_usd": 1.0}, "needs the model's price; give --prices FILE"),
    ],
)
def test_a_cap_that_is_none_is_refused(given, reason: str):
    with pytest.raises(ConfigError, match=reason):
        Budget(**given)


@dataclass
class Client:
    """A client whose users always want more: it begins as many requests as it may."""

    name: str
    limit: int = 0
    lease: float = 0.0
    ends: list[tuple[float, int]] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    def exchange(self, governor: Governor) -> None:
        totals = FlowTotals(num_requests=self.usage.num_calls, num_calls=self.usage.num_calls, usage=self.usage)
        report = ClientReport(in_flight=len(self.ends), waiting=1000, ask_requests=1000, totals=totals)
        allowance = governor.exchange(self.name, report)
        assert allowance.requests is not None
        self.limit, self.lease = allowance.limit, allowance.requests

    def work(self, now_s: float, draw: random.Random, latency_s: float, cost: tuple[int, int]) -> None:
        for end in [end for end in self.ends if end[0] <= now_s]:
            self.ends.remove(end)
            self.usage += spent(1, end[1])
        while len(self.ends) < self.limit and self.lease >= 1:
            self.lease -= 1
            self.ends.append((now_s + latency_s * draw.uniform(0.5, 1.5), draw.randint(*cost)))


def run_up(budget: Budget, *, num_clients: int, ceiling: int, latency_s: float, cost: tuple[int, int], seed: int) -> FlowSnapshot:
    """Lets clients spend until the governor says that nothing is left and all is back."""
    clock, draw = Clock(), random.Random(seed)
    governor = Governor(FlowSettings(), ceiling=ceiling, budget=budget, clock=clock)
    clients = [Client(f"m{i}") for i in range(num_clients)]
    for tick in range(10_000):
        clock.now_s += 0.125
        for number, client in enumerate(clients):
            if (tick + number) % 2 == 0:
                client.exchange(governor)
            client.work(clock.now_s, draw, latency_s, cost)
        snapshot = governor.snapshot()
        if snapshot.is_budget_spent and not any(client.ends for client in clients) and snapshot.in_flight == 0:
            return snapshot
    raise AssertionError("the budget is never spent")


@settings(deadline=None, max_examples=40)
@given(
    num_clients=st.integers(1, 6), ceiling=st.integers(8, 200), latency_s=st.floats(0.01, 4.0), largest=st.integers(100, 2_000),
    num_affordable=st.integers(20, 300), seed=st.integers(0, 9),
)  # fmt: skip
def test_a_budget_is_used_up_and_passed_by_less_than_what_is_in_flight(
    num_clients: int, ceiling: int, latency_s: float, largest: int, num_affordable: int, seed: int
):
    max_tokens = num_affordable * (100 + largest) // 2
    snapshot = run_up(
        Budget(max_tokens=max_tokens),
        num_clients=num_clients, ceiling=ceiling, latency_s=latency_s, cost=(100, largest), seed=seed,
    )  # fmt: skip
    assert max_tokens <= snapshot.usage.prompt_tokens < max_tokens + min(ceiling, num_affordable) * largest


@pytest.mark.parametrize("latency_s", [0.01, 2.0])
def test_requests_of_one_cost_end_at_the_budget_however_fast_they_are(latency_s: float):
    cost = {"cost": (1_000, 1_000), "latency_s": latency_s, "seed": 1}
    assert run_up(Budget(max_tokens=500_000), num_clients=3, ceiling=64, **cost).usage.prompt_tokens == 500_000


def test_a_budget_and_a_rate_both_hold():
    clock = Clock()
    settings = FlowSettings(requests_per_minute=600)
    governor = Governor(settings, ceiling=8, budget=Budget(max_tokens=500, spent=spent(1, 100)), clock=clock)
    clock.now_s += 10
    client = Client("m")
    client.exchange(governor)
    assert client.lease == 4
    client.usage = spent(4, 400)
    client.exchange(governor)
    assert client.lease == 0 and governor.snapshot().is_budget_spent


def test_a_spent_budget_lets_nothing_through_and_a_higher_one_goes_on():
    clock = Clock()
    for budget, lease in ((Budget(max_tokens=100, spent=spent(1, 100)), 0), (Budget(max_tokens=300, spent=spent(1, 100)), 2)):
        governor = Governor(FlowSettings(), ceiling=8, budget=budget, clock=clock)
        client = Client("m")
        client.exchange(governor)
        assert client.lease == lease
        assert governor.snapshot().is_budget_spent == (lease == 0)
