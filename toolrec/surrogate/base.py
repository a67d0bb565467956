"""What a strategy is: how one user is simulated, from the task to the trace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

from toolrec.records import Round, Trace, UserTask

OnRound = Callable[[Round], Awaitable[None]]
"""Called with every completed round, before the next one begins."""


@runtime_checkable
class Strategy(Protocol):
    """Simulates users. The package's own, `toolrec.surrogate.Surrogate`, decides round by round (ReAct).

    One object serves many users at once. It is made with `config`, `pool`, `llm` and `tools`, see `docs/guides/own-parts.md`.
    """

    async def run(self, task: UserTask, *, previous_rounds: Sequence[Round] = (), on_round: OnRound | None = None) -> Trace:
        """Simulates one user to the end. Every way to end gives a trace; only cancellation and unforeseen errors are raised.

        Args:
            task: the user's history; never the target.
            previous_rounds: what an earlier attempt completed before its process was lost; the user goes on after them.
            on_round: to be awaited after every new round, so that it is kept should the process be lost.
        """
        ...
