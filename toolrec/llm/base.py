"""What an LLM is to the rest of the package. No openai here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from toolrec.records import Completion, Message


@runtime_checkable
class LLM(Protocol):
    """Answers chat messages."""

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        stop: Sequence[str] | None = None,
    ) -> Completion:
        """One reply.

        Args:
            messages: the conversation, in OpenAI's chat form.
            tools: tool schemas in OpenAI's form; None for a plain reply.
            stop: texts at which the reply ends.

        Raises:
            LLMUnavailableError: every attempt failed.
            LLMRefusedError: the endpoint's answer is final.
            ContextTooLongError: the messages do not fit.
        """
        ...
