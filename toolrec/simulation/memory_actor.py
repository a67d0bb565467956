"""The shared memory: for every user in flight, the rounds that are done, so that a lost actor loses none of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from toolrec.records import Round
from toolrec.simulation.rows import Row, usage_rows


class SharedMemory:
    """Completed rounds by user, guarded by the attempt: what an older attempt writes late is refused.

    A user's marked candidates are what its rounds' observations brought, so the rounds are all that is kept. A fresh
    shared memory (the actor was restarted) fills up again by itself: `record` says how many rounds it holds, and the
    writer sends what is missing.
    """

    REFUSED = -1

    def __init__(self) -> None:
        self._attempts: dict[int, int] = {}
        self._rounds: dict[int, list[Round]] = {}
        self._spend: list[Row] = []

    async def begin(self, user_index: int, attempt: int) -> list[Round]:
        """Opens an attempt and gives the rounds that earlier ones completed."""
        self._attempts[user_index] = max(attempt, self._attempts.get(user_index, 0))
        return list(self._rounds.get(user_index, ()))

    async def record(self, user_index: int, attempt: int, rounds: Sequence[Round]) -> int:
        """Takes rounds, numbered from 1 without gaps; a round already held is not taken twice.

        Returns:
            How many rounds of this user are held now; fewer than the writer has means that it must send from there on.
            `REFUSED` where a later attempt has begun.
        """
        if attempt < self._attempts.get(user_index, 0):
            return self.REFUSED
        self._attempts[user_index] = attempt
        held = self._rounds.setdefault(user_index, [])
        for done in rounds:
            if done.number == len(held) + 1:
                held.append(done)
                self._spend.extend(_spend_entries(user_index, attempt, done))
        return len(held)

    async def forget(self, user_indexes: Sequence[int]) -> None:
        """Drops users whose traces are committed."""
        for user_index in user_indexes:
            self._rounds.pop(user_index, None)
            self._attempts.pop(user_index, None)

    async def drain_spend(self) -> list[Row]:
        """What was spent since the last call, for the driver's journal."""
        spend, self._spend = self._spend, []
        return spend

    async def num_users(self) -> int:
        """Users with rounds in memory."""
        return len(self._rounds)


def _spend_entries(user_index: int, attempt: int, done: Round) -> list[Row]:
    tool = done.call.tool if done.call else ""
    where: dict[str, Any] = {"user_index": user_index, "attempt": attempt, "round": done.number, "tool": tool}
    return [{**where, **used} for used in usage_rows(done.usage)]


MemoryActor = ray.remote(num_cpus=0.05, max_restarts=-1, max_task_retries=-1, max_concurrency=1000)(SharedMemory)
