"""Trying an endpoint before anything is spent: address, key, model, a plain reply, and both protocols."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from toolrec.errors import LLMError, LLMUnavailableError
from toolrec.grammar import item_ids_in
from toolrec.llm.client import OpenAIChat
from toolrec.llm.config import LLMConfig
from toolrec.records import Completion, Message, Usage

PROTOCOLS = ("tools", "text")
STOP = ("\nObservation",)
_ACTION = re.compile(r"Action\s*\d*\s*:\s*(Retrieve|Rank|Finish)\[[^\]\n]+\]", re.IGNORECASE)

_HISTORY = """History (oldest first):
1. <11> The Quiet Harbour (1994) | genre: Drama
2. <12> Two Sisters (1996) | genre: Drama, Romance
3. <13> A Letter from Home (1995) | genre: Drama
"""
_TASK = f"""You are a person who looks for the next film to watch, with a tool that retrieves films.
{_HISTORY}
Attributes: none, genre
Rounds: 2
List length: 2
"""
_TEXT_RULES = """Answer with one thought and one action, exactly in this form, and then stop:
Thought 1: why
Action 1: Retrieve[attribute, K]
The attribute is one of those listed, K is 5. An observation will follow.
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
_RETRIEVE_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "retrieve",
        "description": "Retrieves films by an attribute.",
        "parameters": {
            "type": "object",
            "properties": {
                "attribute": {"type": "string", "enum": ["none", "genre"]},
                "k": {"type": "integer", "minimum": 1, "maximum": 50},
            },
            "required": ["attribute", "k"],
        },
    },
}


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


async def try_endpoint(config: LLMConfig, protocol: str) -> None:
    """One short call in a run's own form, before it is started: its roles, and its tools or stop texts.

    Raises:
        LLMError: the endpoint cannot be used as `config` says.
    """
    is_native = protocol == "tools"
    messages: list[Message] = [
        {"role": "system", "content": "You play a person."},
        {"role": "user", "content": _TASK + ("Call the tool once." if is_native else _TEXT_RULES)},
    ]
    async with OpenAIChat(config) as llm:
        await llm.complete(messages, tools=[_RETRIEVE_TOOL] if is_native else None, stop=None if is_native else STOP)


async def check_endpoint(config: LLMConfig, *, protocols: Sequence[str] = PROTOCOLS) -> CheckReport:
    """Tries the endpoint with at most three short replies; stops at the first thing without which nothing works.

    Raises:
        ConfigError: no key is set for OpenAI's own address.
    """
    report = CheckReport()
    async with OpenAIChat(config) as llm:
        if await _check_address(llm, report) and await _check_plain(llm, report):
            if "tools" in protocols:
                await _check_tools(llm, report)
            if "text" in protocols:
                await _check_text(llm, report)
            _add_summary(llm, report)
    return report


async def _check_address(llm: OpenAIChat, report: CheckReport) -> bool:
    config = llm.config
    try:
        models = await llm.list_models()
    except LLMError as error:
        advice = "check --llm-url, and that the endpoint is running" if isinstance(error, LLMUnavailableError) else error.hint
        report.add("address and key", "failed", error.message, advice or "")
        return False
    if config.base_url.startswith("http://") and not config.is_local and config.has_key:
        report.add("address and key", "note", "the key travels unencrypted", "use https where it leaves your own network")
    else:
        report.add("address and key", "ok", config.base_url)
    if models is None:
        report.add("model", "note", "the endpoint lists no models; the replies below decide")
    elif config.model in models:
        report.add("model", "ok", config.model)
    else:
        known = ", ".join(models[:8]) + (", …" if len(models) > 8 else "")
        report.add("model", "note", f"{config.model} is not listed; listed: {known or 'none'}", "check --llm-model")
    return True


async def _check_plain(llm: OpenAIChat, report: CheckReport) -> bool:
    name = "plain reply"
    reply = await _ask(llm, report, name, [{"role": "user", "content": _RANK_PROMPT}])
    if reply is None:
        return False
    completion, cost = reply
    if {"21", "22"} <= set(item_ids_in(completion.text)):
        report.add(name, "ok", f"a list in the form asked for{_reasoning_words(completion)}", cost=cost)
    elif completion.text.strip():
        detail = f"not the form asked for: {_short(completion.text)}"
        report.add(name, "note", detail, "a stronger model may be needed", cost=cost)
    else:
        report.add(name, "note", f"empty ({completion.finish_reason})", _empty_advice(completion), cost=cost)
    return True


async def _check_tools(llm: OpenAIChat, report: CheckReport) -> None:
    name = "protocol tools"
    messages = [{"role": "user", "content": _TASK + "Call the tool once."}]
    reply = await _ask(llm, report, name, messages, tools=[_RETRIEVE_TOOL])
    if reply is None:
        return
    completion, cost = reply
    problem = _tool_problem(completion)
    if problem:
        report.add(name, "failed", problem, "use --protocol text, or switch tool calling on at the server", cost=cost)
        return
    more = f", {len(completion.tool_calls)} at once" if len(completion.tool_calls) > 1 else ""
    report.add(name, "ok", f"a native tool call{more}{_reasoning_words(completion)}", cost=cost)
    report.protocols.append("tools")


async def _check_text(llm: OpenAIChat, report: CheckReport) -> None:
    name = "protocol text"
    reply = await _ask(llm, report, name, [{"role": "user", "content": _TASK + _TEXT_RULES}], stop=STOP)
    if reply is None:
        return
    completion, cost = reply
    if not _ACTION.search(completion.text):
        advice = "a stronger model may be needed" if completion.text.strip() else _empty_advice(completion)
        report.add(name, "failed", f"no action in the reply: {_short(completion.text) or 'empty'}", advice, cost=cost)
        return
    report.add(name, "ok", f"a thought and an action{_reasoning_words(completion)}", cost=cost)
    report.protocols.append("text")


async def _ask(
    llm: OpenAIChat,
    report: CheckReport,
    name: str,
    messages: list[Message],
    *,
    tools: Sequence[dict[str, Any]] | None = None,
    stop: Sequence[str] | None = None,
) -> tuple[Completion, str] | None:
    """One reply and its cost in words, or None and a failed row."""
    started_s = time.monotonic()
    try:
        completion = await llm.complete(messages, tools=tools, stop=stop)
    except LLMError as error:
        report.add(name, "failed", error.message, error.hint or "")
        return None
    usage = completion.usage
    report.usage = report.usage + usage
    tokens = f"{usage.prompt_tokens} + {usage.completion_tokens} tokens" if usage.prompt_tokens else "tokens not told"
    return completion, f"{time.monotonic() - started_s:.2f} s, {tokens}"


def _add_summary(llm: OpenAIChat, report: CheckReport) -> None:
    refused = sorted(llm.refused_parameters)
    if refused:
        report.add("parameters", "note", f"refused and left out: {', '.join(refused)}")
    else:
        report.add("parameters", "ok", "none refused")
    if llm.counts["cut_by_client"]:
        report.add("stop texts", "note", "not honoured; replies are cut here, and what follows the cut is paid for")
    if llm.counts["retry"]:
        report.add("retries", "note", f"{llm.counts['retry']} requests were sent again")


def _tool_problem(completion: Completion) -> str | None:
    if not completion.tool_calls:
        return f"no tool call in the reply: {_short(completion.text) or 'empty'}"
    call = completion.tool_calls[0]
    if call.name != "retrieve":
        return f"a call of an unknown tool: {_short(call.name)}"
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        return f"the tool's arguments are no JSON: {_short(call.arguments)}"
    if not isinstance(arguments, dict) or "attribute" not in arguments:
        return f"the tool's arguments lack the attribute: {_short(call.arguments)}"
    return None


def _empty_advice(completion: Completion) -> str:
    if completion.finish_reason == "length":
        return "the reply ended before its answer: raise the limit of output tokens"
    return "try another model"


def _reasoning_words(completion: Completion) -> str:
    return ", with reasoning before it" if completion.reasoning else ""


def _short(text: str, limit: int = 120) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
