"""The gate of one client: a request waits here until the run's limits, the endpoint's word and the budget let it through."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Literal

from toolrec.llm.flow.buckets import BURST_S
from toolrec.llm.flow.governor import EXCHANGE_INTERVAL_S, MAX_HOLD_S, Allowance, ClientReport, FlowTotals
from toolrec.llm.flow.outcomes import Outcomes
from toolrec.records import Usage
from toolrec.util.deadline import uncounted

log = logging.getLogger(__name__)

EARLY_EXCHANGE_S = 0.05
"""How soon after an exchange the next one may be asked for, in seconds, where somebody waits for want of a lease."""

TOKENS_PER_BYTE = 0.25
OUTPUT_TOKENS = 200.0
"""What is thought of a request's cost in tokens before the first usage is seen."""

LEARNING_RATE = 0.05
"""Weight of the newest usage in the means that costs are estimated by."""

KEEP_ALIVE_S = 3.0
"""How long an idle connection is kept. Servers on uvicorn (vLLM, SGLang) close theirs after 5 seconds, and a request that
goes out at that moment is lost."""

CONNECTIONS_PER_S = 500.0
CONNECTIONS_AT_ONCE = 256
"""How fast requests in flight may pass the most that there were within `KEEP_ALIVE_S`, which is when connections are
opened: ten thousand in one moment overrun what a server takes in, and their time-outs would look like an endpoint that is
down."""

NO_USAGE = Usage()

REFUSED_RATE = 0.1
"""Weight of the newest answer in the share of refusals."""

Health = Literal["good", "other", "refused", "down"]
"""What a request's end says of the endpoint; see `Outcomes`. `refused` is also down."""

Exchange = Callable[[ClientReport], Awaitable[Allowance]]


class Request:
    """One HTTP request on its way through the gate: `async with gate.request(size_bytes) as request`.

    Inside, the one who sends it says how it ended: `succeeded` or `failed`. A request that is left without either was
    cancelled.

    Attributes:
        is_probe: whether it is the one that tries an endpoint again that is down.
        waited_s: seconds that it waited for its turn.
    """

    __slots__ = ("_cost_tokens", "_ended", "_gate", "_size_bytes", "_started_s", "is_probe", "waited_s")

    def __init__(self, gate: Gate, size_bytes: int) -> None:
        self._gate = gate
        self._size_bytes = size_bytes
        self._cost_tokens = 0.0
        self._ended = False
        self.is_probe = False
        self._started_s = 0.0
        self.waited_s = 0.0

    async def __aenter__(self) -> Request:
        before_s = self._gate.clock()
        self._cost_tokens = self._gate.estimate_tokens(self._size_bytes)
        self.is_probe = await self._gate.enter(self._cost_tokens)
        self._started_s = self._gate.clock()
        self.waited_s = self._started_s - before_s
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._ended:
            self.failed("cancelled", "other")

    def succeeded(self, usage: Usage) -> None:
        """A completion came."""
        self._ended = True
        used = usage.prompt_tokens + usage.completion_tokens
        taken_s = self._gate.clock() - self._started_s
        self._gate.learn(self._size_bytes, usage)
        self._gate.totals.completed(usage)
        self._gate.leave("good", taken_s, owed_tokens=used - self._cost_tokens if used else 0.0)
        for tell in self._gate.on_completion:
            tell(taken_s)

    def failed(self, kind: str, health: Health, usage: Usage = NO_USAGE) -> None:
        """None came; `kind` is counted, and `usage` where an answer without a reply was paid for."""
        self._ended = True
        used = usage.prompt_tokens + usage.completion_tokens
        self._gate.totals.failures[kind] += 1
        self._gate.totals.usage += usage
        self._gate.leave(
            health,
            self._gate.clock() - self._started_s,
            owed_tokens=used - self._cost_tokens if used else 0.0,
            is_probe=self.is_probe,
            is_counted=kind != "cancelled",
        )


class Totals:
    """A client's running totals; `counts` is its own counter."""

    def __init__(self) -> None:
        self.num_calls = 0
        self.usage = Usage()
        self.failures: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def completed(self, usage: Usage) -> None:
        """Adds a completion."""
        self.num_calls += 1
        self.usage += usage

    def frozen(self) -> FlowTotals:
        return FlowTotals(
            num_requests=self.num_calls + self.failures.total(),
            num_calls=self.num_calls,
            usage=self.usage,
            failures=dict(self.failures),
            counts=dict(self.counts),
        )


class Gate:
    """Lets requests through in the order in which they came, as limits allow.

    On its own it allows `limit` requests in flight. In a run (`keep_in_step`) it follows the governor's allowances, and
    keeps the last one while the governor cannot be reached.

    Args:
        limit: requests in flight; None for none until the first allowance.
        clock: seconds from any fixed point.
        on_completion: called with the seconds of each completion, without the time at the gate.
    """

    def __init__(
        self,
        *,
        limit: int | None,
        clock: Callable[[], float] = time.monotonic,
        on_completion: Sequence[Callable[[float], None]] = (),
    ) -> None:
        self.clock = clock
        self.on_completion = on_completion
        self.totals = Totals()
        self.wants_exchange = asyncio.Event()
        self._allowance = Allowance(limit=limit or 0)
        self._since_s = clock()
        self._in_flight = 0
        self._num_begun = 0
        self._most_in_flight = 0
        self._most_before = 0
        self._most_since_s = clock()
        self._connections = float(CONNECTIONS_AT_ONCE)
        self._connections_s = clock()
        self._waiters: deque[tuple[asyncio.Future[bool], float]] = deque()
        self._requests = 0.0
        self._tokens = 0.0
        self._last_cost_tokens = 0.0
        self._probes = 0
        self._held_until_s = 0.0
        self._hold_s = 0.0
        self._outcomes = Outcomes()
        self._down_in_a_row = 0
        self._refused_share = 0.0
        self._has_probe_failed = False
        self._timer: asyncio.TimerHandle | None = None
        self._tokens_per_byte = TOKENS_PER_BYTE
        self._output_tokens = OUTPUT_TOKENS

    def request(self, size_bytes: int) -> Request:
        """A request with a body of `size_bytes`, to be entered."""
        return Request(self, size_bytes)

    @property
    def is_down(self) -> bool:
        """Whether the endpoint counts as down: failures now are the outage's, not the call's."""
        tripped = self._allowance.trips_after is not None and self._down_in_a_row >= self._allowance.trips_after
        return self._allowance.is_out or tripped

    @property
    def is_refused(self) -> bool:
        """Whether most of the latest answers were refusals: what the endpoint says to one then goes for all."""
        return self._refused_share > 0.5

    def hold(self, seconds: float) -> None:
        """The endpoint wants nothing from anyone for this long."""
        seconds = min(seconds, MAX_HOLD_S)
        self._hold_s = max(self._hold_s, seconds)
        self._held_until_s = max(self._held_until_s, self.clock() + seconds)
        self.wants_exchange.set()

    def estimate_tokens(self, size_bytes: int) -> float:
        """What a request will cost, from what earlier ones cost."""
        return size_bytes * self._tokens_per_byte + self._output_tokens

    def learn(self, size_bytes: int, usage: Usage) -> None:
        """Takes a reply's true cost into the estimate."""
        if usage.prompt_tokens and size_bytes:
            self._tokens_per_byte += LEARNING_RATE * (usage.prompt_tokens / size_bytes - self._tokens_per_byte)
            self._output_tokens += LEARNING_RATE * (usage.completion_tokens - self._output_tokens)

    async def enter(self, cost_tokens: float) -> bool:
        """Waits for its turn; says whether the request is the one that tries a lost endpoint again."""
        if not self._waiters and self._is_open(cost_tokens):
            return self._begin(cost_tokens)
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters.append((turn, cost_tokens))
        self._release()
        try:
            with uncounted():
                return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                if self._allowance.requests is not None:
                    self._requests += 1.0
                self.leave("other", 0.0, owed_tokens=-cost_tokens, is_probe=turn.result(), is_counted=False)
            else:
                with contextlib.suppress(ValueError):  # it may have been passed over already
                    self._waiters.remove((turn, cost_tokens))
            raise

    def leave(
        self, health: Health, latency_s: float, *, owed_tokens: float = 0.0, is_probe: bool = False, is_counted: bool = True
    ) -> None:
        """A request has ended; `owed_tokens` is what it cost beyond the estimate."""
        self._forget_connections()
        self._in_flight -= 1
        self._tokens -= owed_tokens
        if is_counted:
            self._outcomes += _OUTCOMES[health](latency_s)
            self._refused_share += REFUSED_RATE * ((health == "refused") - self._refused_share)
            self._down_in_a_row = 0 if health in ("good", "other") else self._down_in_a_row + 1
            if self.is_down and not self._allowance.is_out:
                self.wants_exchange.set()
        if is_probe and (health in ("refused", "down") or not is_counted):
            self._has_probe_failed = True
            self.wants_exchange.set()
        self._release()

    def report(self) -> ClientReport:
        """What the governor is told; the lease goes back with it, as far as nobody waits for it."""
        returned_requests, returned_tokens = self._requests, self._tokens
        self._requests = self._tokens = 0.0
        asked = [cost for _, cost in self._waiters]
        mean_tokens = sum(asked) / len(asked) if asked else self._last_cost_tokens
        recent = self._num_begun
        report = ClientReport(
            in_flight=self._in_flight,
            waiting=len(asked),
            ask_requests=len(asked) + recent,
            ask_tokens=sum(asked) + recent * mean_tokens,
            head_tokens=asked[0] if asked else 0.0,
            returned_requests=returned_requests,
            returned_tokens=returned_tokens,
            hold_s=self._hold_s,
            has_probe_failed=self._has_probe_failed or self._probes > 0,
            outcomes=self._outcomes,
            totals=self.totals.frozen(),
        )
        self._num_begun = 0
        self._hold_s = 0.0
        self._has_probe_failed = False
        self._outcomes = Outcomes()
        self.wants_exchange.clear()
        return report

    def apply(self, allowance: Allowance) -> None:
        """Takes an allowance, and lets through whom it lets through."""
        now_s = self.clock()
        self._allowance, self._since_s = allowance, now_s
        self._requests += allowance.requests or 0.0
        self._tokens += allowance.tokens or 0.0
        self._probes = allowance.probes
        if not allowance.is_out:
            self._down_in_a_row = min(self._down_in_a_row, (allowance.trips_after or 1) - 1)
        self._held_until_s = max(self._held_until_s, now_s + allowance.hold_s)
        self._release()

    def go_on_alone(self, report: ClientReport) -> None:
        """The governor did not answer: the lease comes back, and the client's share of the rates goes on.

        Of that share no more is saved up than the governor itself would lend: `BURST_S` seconds' worth and one request.
        """
        now_s = self.clock()
        last, gone_s = self._allowance, min(now_s - self._since_s, 1.0)
        self._since_s = now_s
        self._outcomes = report.outcomes + self._outcomes
        self._hold_s = max(self._hold_s, report.hold_s)
        self._has_probe_failed = self._has_probe_failed or report.has_probe_failed
        self._requests = _filled(self._requests + report.returned_requests, last.requests_per_s, gone_s, largest=1.0)
        largest = max([self._last_cost_tokens, *(cost for _, cost in self._waiters)])
        self._tokens = _filled(self._tokens + report.returned_tokens, last.tokens_per_s, gone_s, largest=largest)
        self._release()

    def _is_open(self, cost_tokens: float) -> bool:
        allowance = self._allowance
        if self._probes > 0:
            return True
        if allowance.is_paused or self.is_down or self._in_flight >= allowance.limit or self.clock() < self._held_until_s:
            return False
        if allowance.requests is not None and self._requests < 1.0:
            return False
        if self._connection_wait_s() > 0:
            return False
        return allowance.tokens is None or self._tokens >= cost_tokens

    def _connection_wait_s(self) -> float:
        """Seconds until one more request may be in flight than there are connections; 0 where fewer are."""
        self._forget_connections()
        if self._in_flight < max(self._most_in_flight, self._most_before):
            return 0.0
        now_s = self.clock()
        opened = CONNECTIONS_PER_S * (now_s - self._connections_s)
        self._connections = min(self._connections + opened, float(CONNECTIONS_AT_ONCE))
        self._connections_s = now_s
        return max(1.0 - self._connections, 0.0) / CONNECTIONS_PER_S

    def _forget_connections(self) -> None:
        """Lets the most in flight fall as idle connections close: it is that of two spans of half of `KEEP_ALIVE_S`.

        Called before each change of the number in flight, so that it is known what it was in between.
        """
        spans = (self.clock() - self._most_since_s) / (KEEP_ALIVE_S / 2)
        if spans >= 1.0:
            self._most_before = self._most_in_flight if spans < 2.0 else self._in_flight
            self._most_in_flight = self._in_flight
            self._most_since_s += math.floor(spans) * (KEEP_ALIVE_S / 2)

    def _is_short(self, cost_tokens: float) -> bool:
        """Whether an exchange may bring what is missing; slots come back by themselves."""
        allowance = self._allowance
        if allowance.is_paused or self.is_down or self.clock() < self._held_until_s:
            return False
        lacks_requests = allowance.requests is not None and self._requests < 1.0
        return lacks_requests or allowance.limit == 0 or (allowance.tokens is not None and self._tokens < cost_tokens)

    def _begin(self, cost_tokens: float) -> bool:
        is_probe = self._probes > 0
        self._probes -= is_probe
        self._last_cost_tokens = cost_tokens
        self._in_flight += 1
        self._num_begun += 1
        if self._in_flight > max(self._most_in_flight, self._most_before):
            self._connections -= 1.0
        self._most_in_flight = max(self._most_in_flight, self._in_flight)
        if self._allowance.requests is not None:
            self._requests -= 1.0
        if self._allowance.tokens is not None:
            self._tokens -= cost_tokens
        return is_probe

    def _release(self) -> None:
        while self._waiters and (self._waiters[0][0].cancelled() or self._is_open(self._waiters[0][1])):
            turn, cost_tokens = self._waiters.popleft()
            if not turn.cancelled():  # one that was cancelled in this turn of the loop has not left the queue yet
                turn.set_result(self._begin(cost_tokens))
        if self._waiters:
            self._wake_later()
            if self._is_short(self._waiters[0][1]):
                self.wants_exchange.set()

    def _wake_later(self) -> None:
        """Looks again when the endpoint's word is over, or one more connection may be opened."""
        wait_s = max(self._held_until_s - self.clock(), self._connection_wait_s())
        if wait_s > 0 and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._release()


def _filled(level: float, per_s: float | None, seconds: float, *, largest: float) -> float:
    """A lease after it went on filling at a rate, up to `BURST_S` seconds' worth and the largest request."""
    per_s = per_s or 0.0
    return max(level, min(level + per_s * seconds, per_s * BURST_S + largest))


_OUTCOMES: dict[str, Callable[[float], Outcomes]] = {
    "good": lambda latency_s: Outcomes(num_good=1, latency_s=latency_s),
    "other": lambda _: Outcomes(num_other=1),
    "refused": lambda latency_s: Outcomes(num_refused=1, num_down=1, num_down_in_a_row=1, refusal_latency_s=latency_s),
    "down": lambda _: Outcomes(num_down=1, num_down_in_a_row=1),
}


async def keep_in_step(gate: Gate, exchange: Exchange) -> None:
    """Exchanges with the governor for as long as it runs: at intervals, and early where somebody waits for want of a lease.

    Args:
        gate: the client's gate.
        exchange: brings a report to the governor; raises `ConnectionError` where that one cannot be reached. Any other error
            is logged, once in a row, and the next exchange tries again: without any, all calls would wait for good.
    """
    has_failed = False
    while True:
        report = gate.report()
        try:
            gate.apply(await exchange(report))
            has_failed = False
        except ConnectionError:
            gate.go_on_alone(report)
        except Exception:
            if not has_failed:
                log.exception("an exchange with the governor failed; the next one tries again")
            has_failed = True
            gate.go_on_alone(report)
        await asyncio.sleep(EARLY_EXCHANGE_S)
        try:
            async with asyncio.timeout(EXCHANGE_INTERVAL_S - EARLY_EXCHANGE_S):
                await gate.wants_exchange.wait()
        except TimeoutError:
            pass
