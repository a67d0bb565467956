"""An LLM that says what it was told to say: the real interface, for tests and for trying a strategy."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from toolrec.errors import LLMError, LLMRefusedError
from toolrec.records import Completion, LLMToolCall, Message, Usage

Script = Sequence[Completion | str | LLMError] | Callable[[Sequence[Message]], Completion | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedCall:
    """What one call was given; `messages` is a copy."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] | None
    stop: tuple[str, ...] | None
    response_format: dict[str, Any] | None = None


class ScriptedLLM:
    """Gives the replies of a script, one a call; an error in the script is raised.

    Args:
        script: replies in order, or a function of the messages. A plain string is a reply without tool calls.

    Raises:
        LLMRefusedError: on a call after the last reply.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self.calls: list[ScriptedCall] = []

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        stop: Sequence[str] | None = None,
        response_format: dict[str, Any] | None = None,
    ) -> Completion:
        """The next reply; its usage counts one call, and words for tokens where the script gives none."""
        reply = self._next(messages)
        self.calls.append(
            ScriptedCall(
                messages=tuple(copy.deepcopy(list(messages))),
                tools=None if tools is None else tuple(tools),
                stop=None if stop is None else tuple(stop),
                response_format=response_format,
            )
        )
        if isinstance(reply, LLMError):
            raise reply
        completion = Completion(text=reply) if isinstance(reply, str) else reply
        return completion if completion.usage.num_calls else replace(completion, usage=_words(messages, completion))

    def _next(self, messages: Sequence[Message]) -> Completion | str | LLMError:
        if callable(self._script):
            return self._script(messages)
        if len(self.calls) >= len(self._script):
            raise LLMRefusedError("the script has no more replies", value=len(self._script))
        return self._script[len(self.calls)]


def calling(*calls: tuple[str, dict[str, Any] | str], text: str = "") -> Completion:
    """A reply with native tool calls, each a name and its arguments (a string is taken as raw JSON text)."""
    return Completion(
        text=text,
        tool_calls=tuple(
            LLMToolCall(
                id=f"call_{number}",
                name=name,
                arguments=arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False),
            )
            for number, (name, arguments) in enumerate(calls, start=1)
        ),
        finish_reason="tool_calls" if calls else "stop",
    )


def _words(messages: Sequence[Message], completion: Completion) -> Usage:
    said = completion.text + "".join(call.arguments for call in completion.tool_calls)
    return Usage(
        num_calls=1,
        num_attempts=1,
        prompt_tokens=sum(len(str(message.get("content") or "").split()) for message in messages),
        completion_tokens=len(said.split()),
    )
