"""One user in whatever process: what its calls are attributed to, and the rows of its trace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from toolrec.llm.call_site import CALL_SITE, CallSite, begin_next_round
from toolrec.llm.caller import CALLER, Caller
from toolrec.records import Round, UserTask
from toolrec.runs.rows import Row, trace_rows
from toolrec.surrogate import Strategy, SurrogateConfig


async def simulate_user(
    strategy: Strategy,
    task: UserTask,
    *,
    config: SurrogateConfig,
    max_failed_requests: int,
    keep: Callable[[Round], Awaitable[None]],
    previous_rounds: Sequence[Round] = (),
) -> tuple[Row, list[Row]]:
    """Runs the strategy on one user.

    Args:
        strategy: how.
        task: whom.
        config: names the strategy in the rows; one of the user's own does not know its name.
        max_failed_requests: HTTP requests that may fail for this user.
        keep: is given each round before the next one begins.
        previous_rounds: what an earlier attempt completed.

    Returns:
        The user's row, and its rounds' rows.
    """
    CALLER.set(Caller(max_failed_requests=max_failed_requests))
    CALL_SITE.set(CallSite(user_id=task.user_id, attempt=task.attempt, round=len(previous_rounds) + 1))

    async def on_round(done: Round) -> None:
        begin_next_round()
        await keep(done)

    trace = await strategy.run(task, previous_rounds=previous_rounds, on_round=on_round)
    return trace_rows(replace(trace, strategy=config.strategy))
