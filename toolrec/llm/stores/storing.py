"""Stored replies: a call's key, its reply as JSON, and an LLM that asks a store before it asks the endpoint. No openai here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from toolrec.errors import LLMError
from toolrec.llm.base import LLM
from toolrec.llm.config import LLMConfig
from toolrec.records import Completion, LLMToolCall, Message, Usage


class StoredCall:
    """One call as stores see it: everything that the reply may depend on, and nothing else.

    Args:
        model: the model's name.
        parameters: sampling parameters by name; those that are left to the endpoint are None.
        messages: the conversation.
        tools: tool schemas, if any.
        stop: texts at which the reply ends.
    """

    def __init__(
        self,
        model: str,
        parameters: Mapping[str, Any],
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] | None,
        stop: Sequence[str] | None,
    ) -> None:
        self.model = model
        self.parameters = dict(parameters)
        self.messages = messages
        self.tools = list(tools or ())
        self.stop = list(stop or ())

    @cached_property
    def key(self) -> str:
        """Hex SHA-256 of all of it."""
        return _digest([self.model, self.parameters, list(self.messages), self.tools, self.stop])

    @cached_property
    def outline(self) -> dict[str, Any]:
        """The call without its texts: enough to say in what two calls differ."""
        return {
            "model": self.model,
            "parameters": self.parameters,
            "tools": _digest(self.tools)[:16] if self.tools else "",
            "stop": self.stop,
            "messages": [f"{message.get('role')} {_digest(message)[:16]}" for message in self.messages],
        }


class ReplyStore(Protocol):
    """Where replies are kept."""

    def get(self, call: StoredCall) -> Completion | None:
        """The reply that was kept, as one that costs nothing; None where there is none.

        Raises:
            RecordingError: there must be one, and there is none.
            LLMError: the call is known to have failed so.
        """
        ...

    def put(self, call: StoredCall, reply: Completion) -> None:
        """Keeps a reply.

        Raises:
            StorageError: it cannot be written.
        """
        ...

    def note_failure(self, call: StoredCall, error: LLMError) -> None:
        """The endpoint was asked and there is no reply.

        Raises:
            StorageError: it cannot be written.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoringLLM:
    """An LLM that answers from a store what the store has, and keeps there what it has not.

    Two calls that are the same at the same time may both go to the endpoint.

    Args:
        store: where replies are kept.
        llm: who answers the rest; None where the store must have everything.
        config: gives the model and the parameters.
    """

    store: ReplyStore
    llm: LLM | None
    config: LLMConfig

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        stop: Sequence[str] | None = None,
        response_format: dict[str, Any] | None = None,
    ) -> Completion:
        """One reply, from the store where it has it."""
        parameters = parameters_of(self.config)
        if response_format is not None:
            parameters["response_format"] = _digest(response_format)[:16]
        call = StoredCall(self.config.model, parameters, messages, tools, stop)
        stored = self.store.get(call)
        if stored is not None or self.llm is None:
            assert stored is not None, "a store that must have everything said nothing"
            return stored
        try:
            form = {} if response_format is None else {"response_format": response_format}
            reply = await self.llm.complete(messages, tools=tools, stop=stop, **form)
        except LLMError as error:
            self.store.note_failure(call, error)
            raise
        self.store.put(call, reply)
        return reply


def parameters_of(config: LLMConfig) -> dict[str, Any]:
    """The parameters that change replies, by name."""
    return {
        "temperature": config.temperature,
        "seed": config.seed,
        "max_output_tokens": config.max_output_tokens,
        "parallel_tool_calls": config.parallel_tool_calls,
        **({"extra": config.extra} if config.extra else {}),
    }


def reply_to_json(reply: Completion) -> dict[str, Any]:
    """A reply as stores keep it, with what it had cost."""
    used = reply.usage
    extra = [call.extra for call in reply.tool_calls] if any(call.extra for call in reply.tool_calls) else []
    unknown: dict[str, Any] = {"extra": dict(reply.extra)} if reply.extra else {}
    return {
        **unknown,
        **({"tool_call_extra": [dict(fields) for fields in extra]} if extra else {}),
        "text": reply.text,
        "tool_calls": [[call.id, call.name, call.arguments] for call in reply.tool_calls],
        "finish_reason": reply.finish_reason,
        "reasoning": reply.reasoning,
        "prompt_tokens": used.prompt_tokens + used.saved_prompt_tokens,
        "completion_tokens": used.completion_tokens + used.saved_completion_tokens,
        "cached_tokens": used.cached_tokens + used.saved_cached_tokens,
    }


def reply_from_json(stored: Mapping[str, Any]) -> Completion:
    """The reply again; its tokens count as saved, not as spent."""
    calls = stored["tool_calls"]
    extras = stored.get("tool_call_extra") or [{}] * len(calls)
    return Completion(
        text=stored["text"],
        tool_calls=tuple(
            LLMToolCall(id=i, name=name, arguments=arguments, extra=extra)
            for (i, name, arguments), extra in zip(calls, extras, strict=True)
        ),
        extra=stored.get("extra") or {},
        finish_reason=stored["finish_reason"],
        reasoning=stored["reasoning"],
        usage=Usage(
            num_calls=1,
            num_stored_replies=1,
            saved_prompt_tokens=stored["prompt_tokens"],
            saved_completion_tokens=stored["completion_tokens"],
            saved_cached_tokens=stored.get("cached_tokens", 0),  # younger than the first stored replies
        ),
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
