"""A run under way as a person sees it: users, calls, tokens, cost, failures by kind, as a picture or as one line."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolrec.llm.flow.budget import Budget
from toolrec.llm.flow.governor import FlowSnapshot
from toolrec.records import FINISHED, Usage
from toolrec.runs.failures import Failure, FailureLog

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

MARK_INTERVAL_S = 1.0
NUM_MARKS = 600
"""The rate is taken over this many moments, at least `MARK_INTERVAL_S` apart, in which users ended: the last ten minutes."""

LABEL_WIDTH = 9
GAP = "   "
MIN_BAR_WIDTH, MAX_BAR_WIDTH = 8, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFacts:
    """What is known of a run at one moment.

    Args:
        num_users: users of the run.
        num_done: users that ended, those of earlier sessions too.
        num_in_flight: users under way.
        ended: all ended users by kind, the finished ones too.
        faults: what else was lost and begun again, by kind: actors, tools.
        elapsed_s: seconds since this session began.
        users_per_s: over the last minutes; None before the first user ended.
        flow: how the calls go; None before the first news.
        usage: what all sessions of the run have spent.
        cost_usd: the same in dollars; None where the model's price is not known.
        budget_usd: dollars that may be spent; None for no limit.
        budget_tokens: tokens that may be spent; None for no limit.
        last_failure: the latest failure in a few words; empty before the first.
    """

    num_users: int
    num_done: int = 0
    num_in_flight: int = 0
    ended: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[str, int] = field(default_factory=dict)
    elapsed_s: float = 0.0
    users_per_s: float | None = None
    flow: FlowSnapshot | None = None
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None
    budget_usd: float | None = None
    budget_tokens: int | None = None
    last_failure: str = ""

    @property
    def left_s(self) -> float | None:
        """Seconds until the last user ends, at the present rate; None where nothing is known of it."""
        left = self.num_users - self.num_done
        return left / self.users_per_s if self.users_per_s and left else None


class RunWatch:
    """Collects what the driver tells of a run; asked by whoever shows it, from any thread.

    Args:
        num_users: users of the run.
        earlier: users that ended in earlier sessions, by kind.
        budget: what may be spent, what earlier sessions spent, and what the model costs.
        failures: where failures are written; None for nowhere.
        clock: seconds from any fixed point.
    """

    def __init__(
        self,
        *,
        num_users: int,
        earlier: Mapping[str, int] | None = None,
        budget: Budget | None = None,
        failures: FailureLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.num_users = num_users
        self.num_in_flight = 0
        self.ended: Counter[str] = Counter(earlier or {})
        self.faults: Counter[str] = Counter()
        self.flow: FlowSnapshot | None = None
        self.last_failure = ""
        self._budget = budget or Budget()
        self._failures = failures
        self._num_done = sum(self.ended.values())
        self._clock = clock
        self._start_s = clock()
        self._marks = deque([(self._start_s, self._num_done)], maxlen=NUM_MARKS)

    def user_began(self) -> None:
        """A user is under way."""
        self.num_in_flight += 1

    def user_left(self) -> None:
        """A user is no longer under way, whatever becomes of it."""
        self.num_in_flight -= 1

    def user_ended(self, kind: str) -> None:
        """A user is done; `kind` is how it ended."""
        self.ended[kind] += 1
        self._num_done += 1
        now_s = self._clock()
        if now_s - self._marks[-1][0] >= MARK_INTERVAL_S:
            self._marks.append((now_s, self._num_done))

    def see(self, flow: FlowSnapshot) -> None:
        """How the calls go."""
        self.flow = flow

    def failed(self, failure: Failure) -> None:
        """Something went wrong; a user that it ends is told of by `user_ended` too.

        Raises:
            StorageError: the failure cannot be written down.
        """
        if not failure.is_end:
            self.faults[failure.kind] += 1
        self.last_failure = str(failure if self._failures is None else self._failures.write(failure))

    @property
    def usage(self) -> Usage:
        """What the run has spent so far, over all its sessions."""
        return self._budget.spent if self.flow is None else self._budget.spent + self.flow.usage

    def facts(self) -> LiveFacts:
        """What is known now."""
        now_s, usage = self._clock(), self.usage
        since_s, before = self._marks[0]
        num_done = self._num_done
        rate = (num_done - before) / (now_s - since_s) if now_s > since_s else 0.0
        return LiveFacts(
            num_users=self.num_users,
            num_done=num_done,
            num_in_flight=self.num_in_flight,
            ended=dict(self.ended),
            faults=dict(self.faults),
            elapsed_s=now_s - self._start_s,
            users_per_s=rate or None,
            flow=self.flow,
            usage=usage,
            cost_usd=None if self._budget.price is None else self._budget.price.cost_usd(usage),
            budget_usd=self._budget.max_usd,
            budget_tokens=self._budget.max_tokens,
            last_failure=self.last_failure,
        )

    def picture(self) -> Picture:
        """The facts for a terminal."""
        return Picture(self.facts())

    def line(self) -> str:
        """The facts in one line."""
        return line_of(self.facts())


class Picture:
    """The facts as a few rows, each as wide as the terminal at most: what does not fit is left out and counted."""

    def __init__(self, facts: LiveFacts) -> None:
        self.facts = facts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width - 1  # a terminal may begin a new line after the last column
        yield _bar(self.facts, width, marks="=-" if options.ascii_only else "━─")
        for label, parts in rows_of(self.facts):
            yield _row(label, parts, width)


Part = tuple[str, str]
"""A few words and their style."""


def rows_of(facts: LiveFacts) -> list[tuple[str, list[Part]]]:
    """The rows below the bar: a label, and parts of which the last may be left out. Always the same rows."""
    failed = _most_first({kind: n for kind, n in facts.ended.items() if kind not in FINISHED})
    finished = {kind: n for kind, n in facts.ended.items() if kind in FINISHED}
    faults = _most_first(facts.faults)
    flow = facts.flow or FlowSnapshot()
    failures = _most_first(flow.failures)
    return [
        ("users", _plain(_users(facts))),
        ("ended", [*_plain(_kinds(finished)), *((text, "red") for text in _kinds(failed))] or _NOTHING),
        ("LLM", [*([(_pause(flow), "bold red")] if flow.pause_reason else []), *_plain(_calls(flow))]),
        ("tokens", _plain(_tokens(facts, flow))),
        ("cost", _plain(_cost(facts)) or [("the price is not known", "dim")]),
        ("no reply", [(text, "yellow") for text in _kinds(failures)] or _NOTHING),
        ("faults", [(text, "yellow") for text in _kinds(faults)] or _NOTHING),
        ("last", [(facts.last_failure, "")] if facts.last_failure else [("no failure", "dim")]),
    ]


_NOTHING: list[Part] = [("none", "dim")]


def line_of(facts: LiveFacts) -> str:
    """The facts in one line, for logs and pipes."""
    flow = facts.flow or FlowSnapshot()
    ended = ", ".join(_kinds(_most_first(facts.ended)))
    calls = [_pause(flow)] if flow.pause_reason else []
    groups = [
        f"simulating: {facts.num_done}/{facts.num_users} users",
        ", ".join(_users(facts)),
        f"ended: {ended}" if ended else "",
        "LLM: " + ", ".join([*calls, *_calls(flow), *_tokens(facts, flow), *_cost(facts)]) if facts.flow else "",
        "no reply: " + ", ".join(_kinds(_most_first(flow.failures))) if flow.failures else "",
        "faults: " + ", ".join(_kinds(_most_first(facts.faults))) if facts.faults else "",
    ]
    first, second, *rest = groups
    return "; ".join(part for part in (f"{first}, {second}", *rest) if part)


def _users(facts: LiveFacts) -> list[str]:
    left_s = facts.left_s
    return [
        f"{facts.users_per_s or 0.0:.2f} users/s",
        duration(facts.elapsed_s),
        *([f"{duration(left_s)} left"] if left_s is not None else []),
        f"{facts.num_in_flight:,} in flight",
    ]


def _calls(flow: FlowSnapshot) -> list[str]:
    return [
        f"{flow.requests_per_s:.1f} calls/s",
        f"{flow.in_flight:,} of {flow.limit:,} in flight",
        *([f"{flow.waiting:,} wait"] if flow.waiting else []),
        *([f"{duration(flow.paused_s)} paused"] if flow.paused_s >= 1 else []),
        *([f"{flow.latency_s:.2f} s each"] if flow.latency_s is not None else []),
    ]


def _pause(flow: FlowSnapshot) -> str:
    since = f" for {duration(flow.outage_s)}" if flow.outage_s else ""
    return f"paused: {flow.pause_reason}{since}"


def _tokens(facts: LiveFacts, flow: FlowSnapshot) -> list[str]:
    usage = facts.usage
    cached = f" ({short(usage.cached_tokens)} cached)" if usage.cached_tokens else ""
    limit = f"of {short(facts.budget_tokens)} allowed" if facts.budget_tokens is not None else ""
    return [
        f"{short(flow.tokens_per_s)} tokens/s",
        f"{short(usage.prompt_tokens)} in{cached}",
        f"{short(usage.completion_tokens)} out",
        *([limit] if limit else []),
    ]


def _cost(facts: LiveFacts) -> list[str]:
    if facts.cost_usd is None:
        return []
    limit = f" of {dollars(facts.budget_usd)}" if facts.budget_usd is not None else ""
    return [f"{dollars(facts.cost_usd)}{limit}"]


def _kinds(counts: Mapping[str, int]) -> list[str]:
    return [f"{kind}: {count:,}" for kind, count in counts.items()]


def _most_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def _plain(texts: Sequence[str]) -> list[Part]:
    return [(text, "") for text in texts]


def _bar(facts: LiveFacts, width: int, *, marks: str) -> Text:
    """The share of users that are done, as a bar where there is room for one; `marks` are those of done and left."""
    from rich.text import Text

    share = min(facts.num_done / facts.num_users, 1.0) if facts.num_users else 1.0
    said = f"{facts.num_done:,}/{facts.num_users:,} users  {int(100 * share):3d} %"
    length = min(width - LABEL_WIDTH - len(said) - len(GAP), MAX_BAR_WIDTH)
    row = Text(f"{'run':<{LABEL_WIDTH}}", style="dim")
    if length >= MIN_BAR_WIDTH:
        done = int(share * length)
        row.append(marks[0] * done, style="not dim green").append(marks[1] * (length - done)).append(GAP)
    row.append(said, style="not dim")
    row.truncate(width, overflow="ellipsis")
    return row


def _row(label: str, parts: Sequence[Part], width: int) -> Text:
    """One row: as many parts as fit, and how many more there are."""
    from rich.text import Text

    row = Text(f"{label:<{LABEL_WIDTH}}", style="dim")
    room = width - LABEL_WIDTH
    shown = len(parts)
    while shown > 1 and _length(parts, shown) > room:
        shown -= 1
    for number, (text, style) in enumerate(parts[:shown]):
        row.append((GAP if number else "") + text, style=style or "not dim")
    if shown < len(parts):
        row.append(f"{GAP}+{len(parts) - shown}", style="dim")
    row.truncate(width, overflow="ellipsis")
    return row


def _length(parts: Sequence[Part], shown: int) -> int:
    more = 0 if shown == len(parts) else len(f"{GAP}+{len(parts) - shown}")
    return sum(len(text) for text, _ in parts[:shown]) + len(GAP) * (shown - 1) + more


def duration(seconds: float) -> str:
    """Seconds as people say them, in two units at most."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def short(count: float) -> str:
    """A count in three digits: 950, 12.3k, 4.56M."""
    size, letter = next((entry for entry in _SIZES if count < 999.5 * entry[0]), _SIZES[-1])
    return f"{count / size:.3g}{letter}"


_SIZES = ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"))


def dollars(amount: float) -> str:
    """Dollars, to the hundredth of a cent where they are few."""
    return f"${amount:,.2f}" if amount >= 10 else f"${amount:.4f}"
