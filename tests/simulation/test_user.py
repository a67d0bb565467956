"""One user in whatever process."""

from __future__ import annotations

from typing import Any

from toolrec.llm.call_site import CALL_SITE
from toolrec.records import Round, Trace, UserTask
from toolrec.simulation.user import simulate_user
from toolrec.surrogate import SurrogateConfig

BARE: dict[str, Any] = {
    "thought": "", "call": None, "observation": None, "messages": (), "usage": {}, "counts": {}, "duration_s": 0.1,
}  # fmt: skip
DONE = [Round(number=number, **BARE) for number in (1, 2)]


class OneMoreRound:
    """A strategy of a user's own, which does not know the name that it was given."""

    async def run(self, task: UserTask, *, previous_rounds: Any, on_round: Any) -> Trace:
        self.rounds_seen = [CALL_SITE.get().round]
        await on_round(DONE[1])
        self.rounds_seen.append(CALL_SITE.get().round)
        return Trace(
            user_index=task.user_index, user_id=task.user_id, attempt=task.attempt, opening=(), final_items=(),
            rounds=(*previous_rounds, DONE[1]), completed_items=(), candidates=(), ended_by="finish", error=None,
            usage={}, counts={}, started_s=0.0, ended_s=1.0,
        )  # fmt: skip


async def test_the_rows_name_the_strategy_and_calls_know_their_round():
    strategy, kept = OneMoreRound(), []
    task = UserTask(user_index=3, user_id="u3", history=(1,), attempt=2)

    async def keep(done: Round) -> None:
        kept.append(done)

    config = SurrogateConfig(strategy="my_package:OneMoreRound")
    user, rounds = await simulate_user(strategy, task, config=config, max_failed_requests=5, keep=keep, previous_rounds=DONE[:1])
    assert (user["strategy"], user["attempt"], user["num_rounds"]) == ("my_package:OneMoreRound", 2, 2)
    assert [row["round"] for row in rounds if row["round"]] == [1, 2]
    assert strategy.rounds_seen == [2, 3] and kept == [DONE[1]]
