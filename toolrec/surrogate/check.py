"""Trying an endpoint before anything is spent: address, key, model, a plain reply, and the protocols.

A protocol is tried by a user of its own in a pool of twelve films: the run's prompts, loop and parser, one round and the forced
finish. What works here works in the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from toolrec.data import AttributeSpec, Pool
from toolrec.data.pool import MOVIES
from toolrec.errors import LLMError, LLMUnavailableError
from toolrec.grammar import item_ids_in
from toolrec.llm.base import LLM
from toolrec.llm.client import OpenAIChat
from toolrec.llm.config import LLMConfig
from toolrec.records import FINISHED, Completion, Message, RankedItem, Trace, Usage, UserTask
from toolrec.surrogate.config import SurrogateConfig
from toolrec.surrogate.loop import Surrogate
from toolrec.tools.retrieval import RetrievalTool

PROTOCOLS = ("tools", "json", "text")
"""In the order of preference."""
STOP = ("\nObservation",)
MODELS_TIMEOUT_S = 10.0

_HISTORY = """History (oldest first):
1. <11> The Quiet Harbour (1994) | genre: Drama
2. <12> Two Sisters (1996) | genre: Drama, Romance
3. <13> A Letter from Home (1995) | genre: Drama
"""
_RANK_PROMPT = f"""Which of the candidates fit this person best?
{_HISTORY}
Candidates:
1. <21> Iron Storm (1999) | genre: Action
2. <22> The Long Goodbye Letter (1996) | genre: Drama, Romance

Rank by: genre
Return: 2
Answer with the ids alone, best first, one a line, in angle brackets as above.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """One thing tried: `status` is `ok`, `note` or `failed`; `advice` says what to do about it; `cost` is time and tokens."""

    name: str
    status: str
    detail: str
    advice: str = ""
    cost: str = ""


@dataclass(slots=True)
class CheckReport:
    """All that was tried. `protocols` are those that work, native tool calls first."""

    rows: list[CheckRow] = field(default_factory=list)
    protocols: list[str] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    def add(self, name: str, status: str, detail: str, advice: str = "", *, cost: str = "") -> None:
        """Adds a row."""
        self.rows.append(CheckRow(name=name, status=status, detail=detail, advice=advice, cost=cost))


async def try_endpoint(config: LLMConfig, protocol: str) -> str | None:
    """Two turns of a made-up user, before a run is started.

    Returns:
        What was wrong with the replies, where the endpoint answers but the user came to no final list; a run may still
        do better. None where nothing was.

    Raises:
        LLMError: the endpoint cannot be used as `config` says.
    """
    async with OpenAIChat(config) as llm:
        watched = _Watched(llm)
        trace = await _play(watched, protocol)
    if watched.error is not None:
        raise watched.error
    if trace.ended_by in FINISHED:
        return None
    shown = f"; the reply: {_short(_shown(watched.last))}" if watched.last else ""
    return f"{trace.error}{shown}"


async def choose_protocol(config: LLMConfig) -> str:
    """The first protocol that works at the endpoint, for `--protocol auto`.

    Raises:
        LLMUnavailableError: none does.
    """
    report = CheckReport()
    async with OpenAIChat(config) as llm:
        for protocol in PROTOCOLS:
            await _check_protocol(llm, report, protocol)
            if report.protocols:
                return protocol
    details = "; ".join(f"{row.name}: {row.detail}" for row in report.rows)
    raise LLMUnavailableError(
        f"no protocol works with this endpoint: {details}", hint="try another model, or name a --protocol to run all the same"
    )


async def check_endpoint(config: LLMConfig, *, protocols: Sequence[str] = PROTOCOLS) -> CheckReport:
    """Tries the endpoint with short replies: one plain, and two for each protocol.

    Raises:
        ConfigError: no key is set for OpenAI's own address, or a header's variable is not set.
    """
    report = CheckReport()
    async with OpenAIChat(config) as llm:
        models, problem = await _models(llm)
        if problem is None or not _is_final(problem):
            if await _check_plain(llm, report, models, problem):
                for protocol in PROTOCOLS:
                    if protocol in protocols:
                        await _check_protocol(llm, report, protocol)
                _add_summary(llm, report)
        else:
            report.add("address and key", "failed", problem.message, "check --llm-url, and that the endpoint is running")
    return report


async def _models(llm: OpenAIChat) -> tuple[list[str] | None, LLMError | None]:
    """What the endpoint lists, or why it lists nothing; many take a key for chat alone."""
    try:
        async with asyncio.timeout(MODELS_TIMEOUT_S):
            return await llm.list_models(), None
    except TimeoutError:
        return None, LLMUnavailableError(f"no list of models within {MODELS_TIMEOUT_S:g} s")
    except LLMError as error:
        return None, error


def _is_final(problem: LLMError) -> bool:
    """Whether there is nobody at the address."""
    return isinstance(problem, LLMUnavailableError) and problem.message.startswith("cannot reach")


def _add_address(llm: OpenAIChat, report: CheckReport, models: list[str] | None, problem: LLMError | None) -> None:
    config = llm.config
    if config.base_url.startswith("http://") and not config.is_local and config.has_key:
        report.add("address and key", "note", "the key travels unencrypted", "use https where it leaves your own network")
    else:
        report.add("address and key", "ok", config.base_url)
    if models is None:
        why = f": {_short(problem.message)}" if problem else ""
        report.add("model", "note", f"the endpoint lists no models{why}; the replies below decide")
    elif config.model in models:
        report.add("model", "ok", config.model)
    else:
        known = ", ".join(models[:8]) + (", …" if len(models) > 8 else "")
        report.add("model", "note", f"{config.model} is not listed; listed: {known or 'none'}", "check --llm-model")


async def _check_plain(llm: OpenAIChat, report: CheckReport, models: list[str] | None, problem: LLMError | None) -> bool:
    name = "plain reply"
    started_s = time.monotonic()
    try:
        completion = await llm.complete([{"role": "user", "content": _RANK_PROMPT}])
    except LLMError as error:
        if problem is not None:
            report.add(
                "address and key", "failed", error.message, error.hint or "check --llm-url, and that the endpoint is running"
            )
            return False
        _add_address(llm, report, models, problem)
        report.add(name, "failed", error.message, error.hint or "")
        return False
    _add_address(llm, report, models, problem)
    cost = _cost(report, completion.usage, started_s)
    if {"21", "22"} <= set(item_ids_in(completion.text)):
        report.add(name, "ok", f"a list in the form asked for{_reasoning_words(completion)}", cost=cost)
    elif completion.text.strip():
        detail = f"not the form asked for: {_short(completion.text)}"
        report.add(name, "note", detail, "a stronger model may be needed", cost=cost)
    else:
        report.add(name, "note", f"empty ({completion.finish_reason})", _empty_advice(completion), cost=cost)
    return True


async def _check_protocol(llm: OpenAIChat, report: CheckReport, protocol: str) -> None:
    name = f"protocol {protocol}"
    watched, started_s = _Watched(llm), time.monotonic()
    trace = await _play(watched, protocol)
    cost = _cost(report, watched.usage, started_s)
    if trace.ended_by not in FINISHED:
        error = watched.error
        advice = (error.hint if error else "") or _advice(protocol, watched.last)
        shown = f"; the reply: {_short(_shown(watched.last))}" if watched.last and error is None else ""
        report.add(name, "failed", f"{error.message if error else trace.error}{shown}", advice, cost=cost)
        return
    repairs = [kind.removeprefix("repaired_") for kind in trace.counts if kind.startswith("repaired_")]
    notes = [
        "a call and a final list",
        *(["with reasoning before them"] if watched.last and watched.last.reasoning else []),
        *([f"asked again {trace.counts['reask']} times"] if trace.counts.get("reask") else []),
        *([f"repaired: {', '.join(repairs)}"] if repairs else []),
    ]
    report.add(name, "note" if trace.counts.get("reask") or repairs else "ok", ", ".join(notes), cost=cost)
    report.protocols.append(protocol)


async def _play(llm: LLM, protocol: str) -> Trace:
    """Two turns of a user: a call, and the forced finish."""
    settings = _settings(protocol)
    tools = {"retrieve": RetrievalTool(retriever=_Films(), pool=_POOL, config=settings)}
    surrogate = Surrogate(config=settings, pool=_POOL, llm=llm, tools=tools)
    return await surrogate.run(UserTask(user_index=1, user_id="check", history=(1, 2, 3)))


def _settings(protocol: str) -> SurrogateConfig:
    return SurrogateConfig.of({"protocol": protocol, "rounds": 1, "list_length": 3, "max_reasks": 1})


class _Films:
    """The films that the user has not seen, by either attribute."""

    attributes: tuple[str, ...] = ("genre",)

    async def retrieve(self, attribute: str, history: Sequence[int], *, k: int) -> list[RankedItem]:
        order = range(4, len(_FILMS) + 1) if attribute == "none" else range(len(_FILMS), 3, -1)
        return [RankedItem(item_index=item, score=round(1 / place, 4)) for place, item in enumerate(list(order)[:k], 1)]


_FILMS = (
    *("Quiet Harbour, The (1994)", "Two Sisters (1996)", "A Letter from Home (1995)", "Iron Storm (1999)"),
    *("Long Goodbye Letter, The (1996)", "Paper Lanterns (1998)", "Night Train North (1993)", "Orchard Keepers, The (1997)"),
    *("Silver Creek (1992)", "Winter Sonata, A (1999)", "Clockmaker, The (1991)", "Salt and Rain (1998)"),
)
_GENRES = ("Drama", "Drama", "Drama", "Action", "Drama", "Romance", "Thriller", "Drama", "Western", "Romance", "Mystery", "Drama")
_POOL = Pool(
    item_ids=["", *(f"f{number}" for number in range(11, 11 + len(_FILMS)))],
    titles=["", *_FILMS],
    attributes=[AttributeSpec(name="genre", kind="category", description="genre of the film")],
    values={"genre": list(_GENRES)},
    domain=MOVIES,
)


class _Watched:
    """An LLM whose last reply, last error and usage can be looked at."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self.last: Completion | None = None
        self.error: LLMError | None = None
        self.usage = Usage()

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        stop: Sequence[str] | None = None,
        response_format: dict[str, Any] | None = None,
    ) -> Completion:
        form = {} if response_format is None else {"response_format": response_format}
        try:
            self.last = await self._llm.complete(messages, tools=tools, stop=stop, **form)
        except LLMError as error:
            self.error = error
            raise
        self.usage = self.usage + self.last.usage
        return self.last


def _cost(report: CheckReport, usage: Usage, started_s: float) -> str:
    report.usage = report.usage + usage
    tokens = f"{usage.prompt_tokens} + {usage.completion_tokens} tokens" if usage.prompt_tokens else "tokens not told"
    return f"{time.monotonic() - started_s:.2f} s, {tokens}"


def _shown(completion: Completion) -> str:
    calls = [f"{call.name}({call.arguments})" for call in completion.tool_calls]
    return "; ".join(calls) or completion.text or f"empty ({completion.finish_reason})"


def _advice(protocol: str, completion: Completion | None) -> str:
    if completion is not None and not completion.text.strip() and not completion.tool_calls:
        return _empty_advice(completion)
    if protocol == "tools":
        return "use another protocol, or switch tool calling on at the server"
    return "a stronger model may be needed"


def _add_summary(llm: OpenAIChat, report: CheckReport) -> None:
    refused = sorted(llm.refused_parameters)
    if refused:
        report.add("parameters", "note", f"refused and left out: {', '.join(refused)}")
    else:
        report.add("parameters", "ok", "none refused")
    forms = [kind.partition(":")[2] for kind in llm.counts if kind.startswith("message_form:")]
    if forms:
        report.add("conversation", "note", f"sent in another form, as the endpoint asks: {', '.join(forms)}")
    if llm.counts["response_format_simplified"]:
        report.add("schema", "note", "the endpoint refuses the whole schema; a simpler one is sent")
    if llm.counts["cut_by_client"]:
        report.add("stop texts", "note", "not honoured; replies are cut here, and what follows the cut is paid for")
    if llm.counts["retry"]:
        report.add("retries", "note", f"{llm.counts['retry']} requests were sent again")


def _empty_advice(completion: Completion) -> str:
    if completion.finish_reason == "length":
        return "the reply ended before its answer: raise --llm-max-output-tokens"
    return "try another model"


def _reasoning_words(completion: Completion) -> str:
    return ", with reasoning before it" if completion.reasoning else ""


def _short(text: str, limit: int = 120) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
