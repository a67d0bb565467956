"""What Prometheus is told of a run, through Ray's own metrics: by the driver from the run's facts, by the actors as calls end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ray.util.metrics import Counter, Gauge, Histogram

from toolrec.llm.flow.governor import FlowSnapshot
from toolrec.records import RankedItem
from toolrec.simulation.monitor.live import LiveFacts
from toolrec.tools.base import Retriever

PREFIX = "ray_"
"""Ray puts this before every name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One metric: units stand in its name; each has the tag `run`, the run folder's name, beside its own."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    tags: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()

    def made(self, run: str) -> Any:
        """The metric in this process."""
        tag_keys = ("run", *self.tags)
        metric: Any
        if self.kind == "histogram":
            metric = Histogram(self.name, self.meaning, boundaries=list(self.boundaries), tag_keys=tag_keys)
        else:
            metric = (Counter if self.kind == "counter" else Gauge)(self.name, self.meaning, tag_keys=tag_keys)
        metric.set_default_tags({"run": label(run)})
        return metric


def label(text: str) -> str:
    """A tag's value as Ray takes it, in ASCII: `Läufe` becomes `L\\xe4ufe`."""
    return text.encode("ascii", "backslashreplace").decode("ascii")


_LLM_BOUNDARIES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_TOOL_BOUNDARIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

LLM_SECONDS = MetricSpec(
    name="toolrec_llm_request_seconds",
    kind="histogram",
    meaning="Duration of an HTTP request that returned a completion, without waiting for the limits.",
    boundaries=_LLM_BOUNDARIES,
)
TOOL_SECONDS = MetricSpec(
    name="toolrec_tool_call_seconds",
    kind="histogram",
    meaning="Duration of a retrieval, by attribute; `none` is the plain backbone.",
    tags=("attribute",),
    boundaries=_TOOL_BOUNDARIES,
)
RUN_METRICS = (
    MetricSpec(
        name="toolrec_users_total",
        kind="counter",
        meaning="Users that ended, including earlier sessions of the run.",
        tags=("ended_by",),
    ),
    MetricSpec(name="toolrec_users_in_flight", kind="gauge", meaning="Users in progress."),
    MetricSpec(name="toolrec_users_left", kind="gauge", meaning="Users that have not ended, including those in progress."),
    MetricSpec(
        name="toolrec_faults_total",
        kind="counter",
        meaning="Things that were lost and restarted.",
        tags=("kind",),
    ),
    MetricSpec(
        name="toolrec_llm_requests_total",
        kind="counter",
        meaning="Completed HTTP requests to the LLM endpoint: `completion`, or the kind of failure.",
        tags=("outcome",),
    ),
    MetricSpec(
        name="toolrec_llm_tokens_total",
        kind="counter",
        meaning="Tokens: `prompt` (without cached ones), `cached` (of prompts), `completion`.",
        tags=("kind",),
    ),
    MetricSpec(name="toolrec_llm_requests_in_flight", kind="gauge", meaning="HTTP requests sent and not yet answered."),
    MetricSpec(name="toolrec_llm_requests_waiting", kind="gauge", meaning="Requests that wait for the limits."),
    MetricSpec(name="toolrec_llm_requests_limit", kind="gauge", meaning="Requests that may be in flight now."),
    MetricSpec(name="toolrec_llm_paused_seconds_total", kind="counter", meaning="Seconds in which no request was started."),
    MetricSpec(
        name="toolrec_cost_usd_total",
        kind="counter",
        meaning="Dollars over all sessions of the run, if the model's price is known.",
    ),
)
ACTOR_METRICS = (LLM_SECONDS, TOOL_SECONDS)


class RunMetrics:
    """The run's counters and gauges, told by the driver.

    Args:
        run: the run folder's name.
    """

    def __init__(self, run: str) -> None:
        self._metrics = {spec.name: spec.made(run) for spec in RUN_METRICS}
        self._told: dict[tuple[str, ...], float] = {}

    def tell(self, facts: LiveFacts) -> None:
        """Records how the run stands; a counter gets what was added since the last time."""
        self._counts("toolrec_users_total", "ended_by", facts.ended)
        self._counts("toolrec_faults_total", "kind", facts.faults)
        self._gauge("toolrec_users_in_flight", facts.num_in_flight)
        self._gauge("toolrec_users_left", facts.num_users - facts.num_done)
        if facts.cost_usd is not None:
            self._counter("toolrec_cost_usd_total", facts.cost_usd)
        if facts.flow is not None:
            self._tell_flow(facts.flow)

    def _tell_flow(self, flow: FlowSnapshot) -> None:
        used = flow.usage
        self._counts("toolrec_llm_requests_total", "outcome", {"completion": flow.num_calls, **flow.failures})
        self._counts(
            "toolrec_llm_tokens_total",
            "kind",
            {
                "prompt": used.prompt_tokens - used.cached_tokens,
                "cached": used.cached_tokens,
                "completion": used.completion_tokens,
            },
        )
        self._counter("toolrec_llm_paused_seconds_total", flow.paused_s)
        self._gauge("toolrec_llm_requests_in_flight", flow.in_flight)
        self._gauge("toolrec_llm_requests_waiting", flow.waiting)
        self._gauge("toolrec_llm_requests_limit", flow.limit)

    def _counts(self, name: str, tag: str, totals: Mapping[str, int]) -> None:
        for kind, total in totals.items():
            self._counter(name, total, {tag: label(kind)})

    def _counter(self, name: str, total: float, tags: dict[str, str] | None = None) -> None:
        where = (name, *(tags or {}).values())
        added = total - self._told.get(where, 0.0)
        if added > 0:  # a governor that was restarted may know less for a moment
            self._metrics[name].inc(added, tags)
            self._told[where] = total

    def _gauge(self, name: str, value: float) -> None:
        self._metrics[name].set(value)


class TimedRetriever:
    """A retriever whose seconds Prometheus is told of.

    Args:
        retriever: where the lists come from.
        run: the run folder's name.
    """

    def __init__(self, retriever: Retriever, run: str) -> None:
        self.attributes = retriever.attributes
        self._retriever = retriever
        self._seconds = TOOL_SECONDS.made(run)

    async def retrieve(self, attribute: str, history: Sequence[int], *, k: int) -> list[RankedItem]:
        """The list, and how long it took; one that fails is not timed."""
        started_s = time.perf_counter()
        items = await self._retriever.retrieve(attribute, history, k=k)
        self._seconds.observe(time.perf_counter() - started_s, {"attribute": label(attribute)})
        return items


def llm_seconds(run: str) -> Callable[[float], None]:
    """Takes the seconds of one request to the LLM endpoint."""
    seconds = LLM_SECONDS.made(run)
    return lambda taken_s: seconds.observe(taken_s)
