"""What a strategy is: how one user is simulated, from the task to the trace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

from toolrec.records import Round, Trace, UserTask

OnRound = Callable[[Round], Awaitable[None]]
"""Told of every completed round, before the next one begins."""


@runtime_checkable
class Strategy(Protocol):
    """Simulates users. `Surrogate` decides round by round (ReAct); others are sibling classes."""

    async def run(self, task: UserTask, *, previous_rounds: Sequence[Round] = (), on_round: OnRound | None = None) -> Trace:
        """Simulates one user to the end, after the rounds that an earlier attempt completed.

        Every way to end gives a trace. Only cancellation and unforeseen errors are raised.
        """
        ...
