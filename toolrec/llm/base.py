"""What an LLM is to the rest of the package. No openai here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from toolrec.records import Completion, Message


@runtime_checkable
class LLM(Protocol):
    """A chat LLM: what plays the user, and what the rank tool asks.

    The package's own is `toolrec.llm.OpenAIChat`, for any endpoint that speaks OpenAI's chat completions.
    `toolrec.llm.scripted.ScriptedLLM` gives prepared replies, for tests. One object serves many users at once.
    """

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        stop: Sequence[str] | None = None,
        response_format: dict[str, Any] | None = None,
    ) -> Completion:
        """One reply.

        Args:
            messages: the conversation in OpenAI's chat format.
            tools: tool schemas in OpenAI's format; None for a plain reply.
            stop: texts at which the reply ends.
            response_format: the JSON schema of the reply in OpenAI's format (`--protocol json` alone gives one).

        Raises:
            LLMUnavailableError: every attempt failed.
            LLMRefusedError: the endpoint's answer is final: wrong key, unknown model.
            ContextTooLongError: the messages do not fit the model; the surrogate shortens them once and asks again.
        """
        ...
