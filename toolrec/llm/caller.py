"""On whose behalf calls are made: how many failed requests one user's calls may take, over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from toolrec.records import Message


@dataclass(slots=True, kw_only=True)
class Caller:
    """One user's account with the client.

    Args:
        max_failed_requests: failed requests of all its calls together before each further one is final.
    """

    max_failed_requests: int
    num_failed_requests: int = 0
    _longest: tuple[int, int] = (0, 0)

    @property
    def exhausted(self) -> str | None:
        """What is used up, in words; None where nothing is."""
        if self.num_failed_requests >= self.max_failed_requests:
            return f"the user's {self.max_failed_requests} failed requests are used up"
        return None

    def is_prompt_cut(self, messages: Sequence[Message], prompt_tokens: int) -> bool:
        """Whether a conversation has grown by much and its tokens have not: the endpoint leaves out what does not fit.

        Args:
            messages: what was sent.
            prompt_tokens: what the endpoint says it has read of it.
        """
        num_characters = sum(len(str(message.get("content") or "")) for message in messages)
        before, tokens = self._longest
        if num_characters >= before:
            self._longest = (num_characters, prompt_tokens)
        return before > 0 and num_characters - before >= MIN_GROWTH_CHARACTERS and prompt_tokens <= tokens


MIN_GROWTH_CHARACTERS = 400
"""About a hundred tokens: less may be hidden by how an endpoint counts."""

CALLER: ContextVar[Caller | None] = ContextVar("toolrec_caller", default=None)
"""The user on whose behalf the current task calls; None where nobody keeps account."""
