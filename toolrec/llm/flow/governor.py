"""Flow control over all LLM clients of a run: what they report, and the governor that shares the endpoint among them.

A client is one LLM client (one a process) with its gate. A few times a second it reports what it did and how many calls
wait, and gets an allowance: requests in flight, requests and tokens to spend, whether to hold still. Totals are
cumulative: a report that is lost or arrives twice changes nothing, and a restarted governor knows everything again after
one report of each client. No Ray and no clock of its own here.
"""

from __future__ import annotations

import math
import random
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from toolrec.llm.flow.adaptive import AdaptiveLimit
from toolrec.llm.flow.breaker import MIN_IN_A_ROW, Breaker
from toolrec.llm.flow.buckets import LeasedBucket
from toolrec.llm.flow.budget import Budget
from toolrec.llm.flow.outcomes import Outcomes
from toolrec.records import Usage, add_counts
from toolrec.util.settings import Settings, setting

EXCHANGE_INTERVAL_S = 0.25
"""How often a client reports at least, in seconds."""

CLIENT_TIMEOUT_S = 10.0
"""A client that was silent for this long is gone: what was lent to it is lent to others. Its totals stay."""

RATE_WINDOW_S = 10.0
"""Over how many seconds the shown rates are taken."""

MAX_HOLD_S = 60.0
"""No endpoint's word holds everyone for longer than this at a time."""

NO_LIMIT = "none"
"""The word for a limit that is not set, beside `null`."""

MAX_PER_MINUTE = 1e15
MAX_CONCURRENCY = 1_000_000
"""Limits beyond these are a slip."""

NO_FAULT_OF_ENDPOINT = frozenset({"cancelled", "context_too_long", "parameter_refused"})
"""Kinds of requests without a completion that say nothing against the endpoint."""

PauseReason = Literal["", "by hand", "outage", "rate limit"]


class FlowSettings(Settings):
    """What a run may ask of its endpoint; all of it can be changed while it runs, none of it changes a result."""

    requests_per_minute: float | None = setting(
        None,
        "LLM requests a minute, over all nodes.",
        flag="--requests-per-minute",
        none_word=NO_LIMIT,
        gt=0,
        le=MAX_PER_MINUTE,
    )
    tokens_per_minute: float | None = setting(
        None,
        "LLM tokens (prompt and reply) a minute, over all nodes.",
        flag="--tokens-per-minute",
        none_word=NO_LIMIT,
        gt=0,
        le=MAX_PER_MINUTE,
    )
    llm_concurrency: int | None = setting(
        None,
        "LLM requests in flight at most, over all nodes; none for as many as there are users in flight.",
        flag="--llm-concurrency",
        none_word=NO_LIMIT,
        ge=1,
        le=MAX_CONCURRENCY,
    )
    is_paused: bool = setting(False, "Start no LLM request until `toolrec control --resume`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowTotals:
    """What was sent and what came back since a client began.

    `num_requests` are HTTP requests that have ended, however they ended: as many as `num_calls` (completions) and
    `failures` (by kind, as `429`, `timeout`, `connection`, `malformed`; refused parameters among them) together. `usage` is
    all that they cost, whatever becomes of the users. `counts` are the client's other counters: `retry`, `usage_missing`, …
    """

    num_requests: int = 0
    num_calls: int = 0
    usage: Usage = field(default_factory=Usage)
    failures: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: FlowTotals) -> FlowTotals:
        return FlowTotals(
            num_requests=self.num_requests + other.num_requests,
            num_calls=self.num_calls + other.num_calls,
            usage=self.usage + other.usage,
            failures=add_counts([self.failures, other.failures]),
            counts=add_counts([self.counts, other.counts]),
        )

    @property
    def num_unreported(self) -> int:
        """Completions whose usage the endpoint did not report."""
        return self.counts.get("usage_missing", 0)

    @property
    def num_failures(self) -> int:
        """Requests that the endpoint failed: none that was given up here, or asked what does not fit or is not taken."""
        return sum(count for kind, count in self.failures.items() if kind not in NO_FAULT_OF_ENDPOINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientReport:
    """What a client reports.

    Args:
        in_flight: requests sent and not answered.
        waiting: requests that wait at the gate.
        ask_requests: requests that it would like to begin before the next exchange.
        ask_tokens: what they cost in tokens, by estimate.
        head_tokens: the cost of the one that waits longest.
        returned_requests: what it does not use of its lease.
        returned_tokens: likewise; below 0 where replies cost more than was estimated.
        hold_s: seconds for which the endpoint wants nothing from anyone.
        has_probe_failed: whether the request that was to see if the endpoint is back failed.
        outcomes: since the last report.
        totals: since the client began.
    """

    in_flight: int = 0
    waiting: int = 0
    ask_requests: float = 0.0
    ask_tokens: float = 0.0
    head_tokens: float = 0.0
    returned_requests: float = 0.0
    returned_tokens: float = 0.0
    hold_s: float = 0.0
    has_probe_failed: bool = False
    outcomes: Outcomes = field(default_factory=Outcomes)
    totals: FlowTotals = field(default_factory=FlowTotals)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a client may do until its next exchange.

    Args:
        limit: requests in flight.
        requests: requests that it may begin, on top of what it holds; None for no limit.
        tokens: tokens that they may cost; None for no limit.
        requests_per_s: its share of the rate, to go on with while the governor is away; 0 under a budget, None for no limit.
        tokens_per_s: likewise.
        hold_s: seconds in which it begins nothing.
        is_out: the endpoint is down for everyone: begin nothing but the probe.
        is_paused: held back by hand.
        probes: requests that it may send although the endpoint is down, to see whether it is back.
        trips_after: failures in a row after which a client holds still without waiting to be told; None for never.
    """

    limit: int
    requests: float | None = None
    tokens: float | None = None
    requests_per_s: float | None = None
    tokens_per_s: float | None = None
    hold_s: float = 0.0
    is_out: bool = False
    is_paused: bool = False
    probes: int = 0
    trips_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSnapshot(FlowTotals):
    """The flow of a whole run at one moment: what views, metrics and budgets read. Its totals are those of all clients.

    Args:
        in_flight: requests sent and not answered, by the clients' last reports.
        waiting: calls that wait at the gates.
        limit: requests in flight that are allowed now.
        cap: and at most.
        requests_per_s: over the last seconds.
        tokens_per_s: likewise.
        latency_s: a completion's mean seconds of late; None before the first.
        paused_s: seconds in which nothing was begun, for whatever reason.
        pause_reason: why nothing is begun now; empty where it is.
        outage_s: seconds since the endpoint went down; 0 where it is up.
        num_outages: how often it went down.
        settings: what is asked for at present.
        clients: each client's own totals.
        governor: another value after every restart of the governor.
        is_budget_spent: no further request is begun, as the run's budget is spent.
    """

    in_flight: int = 0
    waiting: int = 0
    limit: int = 0
    cap: int = 0
    requests_per_s: float = 0.0
    tokens_per_s: float = 0.0
    latency_s: float | None = None
    paused_s: float = 0.0
    pause_reason: PauseReason = ""
    outage_s: float = 0.0
    num_outages: int = 0
    settings: FlowSettings = field(default_factory=FlowSettings)
    clients: Mapping[str, FlowTotals] = field(default_factory=dict)
    governor: str = ""
    is_budget_spent: bool = False


@dataclass(slots=True)
class _Client:
    """What the governor knows of one client."""

    heard_s: float
    report: ClientReport = field(default_factory=ClientReport)
    granted: int = 0
    affordable: int = 0

    @property
    def demand(self) -> int:
        return self.report.in_flight + self.report.waiting

    @property
    def held(self) -> int:
        """Requests in flight that it may have at this moment."""
        return max(self.granted, self.report.in_flight)


class Governor:
    """Shares the endpoint's limits among the clients of a run, and holds all of them when it is down.

    Args:
        settings: limits to start with.
        ceiling: users in flight, the most requests there can be.
        budget: what the run may spend; clients are lent the requests that it is still good for.
        clock: seconds from any fixed point.
        draw: a number between 0 and 1, for jitter.
        is_restarted: whether an earlier governor of this run is gone. Then nothing is lent before all clients that may be
            there had the time to report: two intervals where `restore` tells what was spent, `CLIENT_TIMEOUT_S` where not.
    """

    def __init__(
        self,
        settings: FlowSettings,
        *,
        ceiling: int,
        budget: Budget | None = None,
        is_restarted: bool = False,
        clock: Callable[[], float],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._ceiling = ceiling
        self._budget = budget or Budget()
        self._name = uuid.uuid4().hex
        self._settings = settings
        now_s = clock()
        self._began_s = now_s
        self._lends_from_s = now_s + CLIENT_TIMEOUT_S if is_restarted else now_s
        self._clients: dict[str, _Client] = {}
        self._totals: dict[str, FlowTotals] = {}
        self._limit = AdaptiveLimit(self._cap, now_s=now_s)
        self._breaker = Breaker(ceiling, draw=draw)
        self._requests = LeasedBucket(settings.requests_per_minute, now_s=now_s)
        self._tokens = LeasedBucket(settings.tokens_per_minute, now_s=now_s)
        self._held_until_s = now_s
        self._paused_s = 0.0
        self._last_s = now_s
        self._history: deque[tuple[float, int, int]] = deque([(now_s, 0, 0)])

    @property
    def _cap(self) -> int:
        return min(self._settings.llm_concurrency or self._ceiling, self._ceiling)

    def exchange(self, name: str, report: ClientReport) -> Allowance:
        """Takes a client's report and gives its next allowance."""
        now_s = self._advance()
        client = self._clients.setdefault(name, _Client(heard_s=now_s))
        client.heard_s, client.report = now_s, report
        self._totals[name] = report.totals
        self._held_until_s = max(self._held_until_s, now_s + min(report.hold_s, MAX_HOLD_S))
        demand = sum(other.demand for other in self._clients.values())
        self._limit.observe(report.outcomes, in_flight=self._in_flight, demand=demand, now_s=now_s)
        if self._breaker.observe(report.outcomes, has_probe_failed=report.has_probe_failed, now_s=now_s):
            self._limit.restart(now_s=now_s)
        if report.in_flight == 0:
            self._breaker.drop(name)  # whatever it was to try again with is over, or was never told to it
        share = client.demand / demand if demand else 1.0 / len(self._clients)
        lends = now_s >= self._lends_from_s
        client.granted = self._slots(name, now_s) if lends else report.in_flight
        affordable = self._affordable(name, share, lends=lends)
        requests = self._requests.exchange(
            name,
            returned=report.returned_requests,
            ask=min(report.ask_requests, affordable) if lends else 0.0,
            head=min(report.waiting, 1, affordable) if lends else 0.0,
            share=share,
        )
        if requests is None and math.isfinite(affordable):
            requests = affordable
        tokens = self._tokens.exchange(
            name,
            returned=report.returned_tokens,
            ask=report.ask_tokens if lends else 0.0,
            head=report.head_tokens if lends else 0.0,
            share=share,
        )
        wants_probe = report.waiting > 0 and not self._settings.is_paused
        return Allowance(
            limit=client.granted,
            requests=requests,
            tokens=tokens,
            requests_per_s=self._requests.share_per_s(share) if math.isinf(affordable) else 0.0,
            tokens_per_s=self._tokens.share_per_s(share),
            hold_s=max(self._held_until_s - now_s, 0.0),
            is_out=self._breaker.is_out,
            is_paused=self._settings.is_paused,
            probes=int(wants_probe and self._breaker.takes_probe(name, now_s)),
            trips_after=max(MIN_IN_A_ROW, math.ceil(self._breaker.num_in_a_row * share)),
        )

    def retune(self, settings: FlowSettings) -> None:
        """Goes on with other limits."""
        now_s = self._advance()
        self._settings = settings
        self._limit.retune(self._cap, now_s=now_s)
        self._requests.retune(settings.requests_per_minute)
        self._tokens.retune(settings.tokens_per_minute)

    def restore(self, totals: Mapping[str, FlowTotals]) -> None:
        """Takes in what an earlier governor knew of clients that may be gone; later reports stand above it."""
        for name, known in totals.items():
            if known.num_requests > self._totals.get(name, FlowTotals()).num_requests:
                self._totals[name] = known
        self._lends_from_s = min(self._lends_from_s, self._began_s + 2 * EXCHANGE_INTERVAL_S)

    def snapshot(self) -> FlowSnapshot:
        """The flow at this moment."""
        now_s = self._advance()
        total = sum(self._totals.values(), FlowTotals())
        began_s, num_requests, num_tokens = self._history[0]
        span_s = max(now_s - began_s, 1e-9)
        return FlowSnapshot(
            in_flight=self._in_flight,
            waiting=sum(client.report.waiting for client in self._clients.values()),
            limit=self._limit.value,
            cap=self._cap,
            num_requests=total.num_requests,
            num_calls=total.num_calls,
            usage=total.usage,
            failures=total.failures,
            counts=total.counts,
            requests_per_s=max(total.num_requests - num_requests, 0) / span_s,
            tokens_per_s=max(_tokens(total.usage) - num_tokens, 0) / span_s,
            latency_s=self._limit.latency_s,
            paused_s=self._paused_s,
            pause_reason=self._pause_reason(now_s),
            outage_s=self._breaker.outage_s(now_s),
            num_outages=self._breaker.num_outages,
            settings=self._settings,
            clients=dict(self._totals),
            governor=self._name,
            is_budget_spent=self._budget.affordable(total.usage, total.num_unreported) == 0,
        )

    @property
    def _in_flight(self) -> int:
        return sum(client.report.in_flight for client in self._clients.values())

    def _advance(self) -> float:
        """Moves everything that depends on time to the present."""
        now_s = self._clock()
        reason = self._pause_reason(self._last_s)
        if reason:
            until_s = min(now_s, self._held_until_s) if reason == "rate limit" else now_s
            self._paused_s += max(until_s - self._last_s, 0.0)
        self._last_s = now_s
        for name in [name for name, client in self._clients.items() if now_s - client.heard_s > CLIENT_TIMEOUT_S]:
            del self._clients[name]
            self._requests.drop(name)
            self._tokens.drop(name)
            self._breaker.drop(name)
        self._requests.refill(now_s)
        self._tokens.refill(now_s)
        if now_s - self._history[-1][0] >= 1.0:
            total = sum(self._totals.values(), FlowTotals())
            self._history.append((now_s, total.num_requests, _tokens(total.usage)))
            while len(self._history) > 1 and now_s - self._history[1][0] >= RATE_WINDOW_S:
                self._history.popleft()
        return now_s

    def _pause_reason(self, now_s: float) -> PauseReason:
        if self._settings.is_paused:
            return "by hand"
        if self._breaker.is_out:
            return "outage"
        return "rate limit" if now_s < self._held_until_s else ""

    def _affordable(self, name: str, share: float, *, lends: bool) -> float:
        """Requests that a client may begin until it reports again, so that all of them together end at the budget."""
        usage = sum((totals.usage for totals in self._totals.values()), Usage())
        total = self._budget.affordable(usage, sum(totals.num_unreported for totals in self._totals.values()))
        client = self._clients[name]
        if total is None:
            return math.inf
        free = total - self._in_flight - sum(other.affordable for other in self._clients.values() if other is not client)
        client.affordable = max(math.floor(free * share), min(free, client.report.waiting, 1), 0) if lends else 0
        return client.affordable

    def _slots(self, name: str, now_s: float) -> int:
        """Requests in flight that one client may have: its share by demand, and never what another may have already.

        Parts of a slot go round from second to second, so that a limit below the number of clients serves all of them.
        What is left over where all demand is met is offered in halves: whoever comes next finds some at once.
        """
        limit = self._limit.value
        demands = {other: client.demand for other, client in self._clients.items()}
        demand = sum(demands.values())
        free = limit - sum(client.held for other, client in self._clients.items() if other != name)
        if demand <= limit:
            spare = (limit - demand) // (2 * len(self._clients))
            return max(min(demands[name] + spare, free), 0)
        order = sorted(demands)
        turn = int(now_s) % len(order)
        before = 0.0
        for other in order[turn:] + order[:turn]:
            after = before + limit * demands[other] / demand
            if other == name:
                return max(min(math.floor(after + 1e-9) - math.floor(before + 1e-9), free), 0)
            before = after
        raise AssertionError("unreachable")


def _tokens(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens
