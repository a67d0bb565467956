"""What all agents of other frameworks have in common as a strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar

from toolrec.data import Pool
from toolrec.llm.base import LLM
from toolrec.records import Round, Trace, UserTask
from toolrec.surrogate.base import OnRound
from toolrec.surrogate.config import SurrogateConfig
from toolrec.surrogate.session import AgentEnded, AgentParts, ToolSession
from toolrec.tools.base import Tool
from toolrec.util.deadline import deadline

CURRENT: ContextVar[ToolSession] = ContextVar("session")
"""The user whom the running task simulates: one agent object serves all users."""

ENDED_WITHOUT_LIST = "the agent ended without a call of finish"


class AgentStrategy:
    """A strategy whose rounds are decided by an agent of another framework.

    A subclass says in `act` how the agent is run on the conversation of `session`. The agent asks the LLM through
    `session.ask` and calls tools through `session.call`; both raise `AgentEnded` when the user has ended.

    Args:
        config: settings of the surrogate; native tool calls, list as given.
        pool: the item pool directory.
        llm: the run's own, with its limits, stores and ledger.
        tools: `retrieve` and, where there is one, `rank`.
    """

    def __init__(self, *, config: SurrogateConfig, pool: Pool, llm: LLM, tools: Mapping[str, Tool]) -> None:
        self.llm = llm
        self.parts = AgentParts(config=config, pool=pool, tools=tools)

    async def act(self, session: ToolSession) -> None:
        """Runs the agent on a user until it ends by itself or with `AgentEnded`."""
        raise NotImplementedError

    async def run(self, task: UserTask, *, previous_rounds: Sequence[Round] = (), on_round: OnRound | None = None) -> Trace:
        """Simulates one user; an agent that ends without a list, or past its time, is a failed user.

        Args:
            task: the user's history.
            previous_rounds: what an earlier attempt completed: their messages are the beginning of the conversation.
            on_round: told of every new round.
        """
        session = ToolSession(self.parts, task, previous_rounds=previous_rounds, on_round=on_round)
        token = CURRENT.set(session)
        try:
            if not session.is_over:
                await self._within_time(session)
        except AgentEnded:
            pass
        finally:
            CURRENT.reset(token)
        return session.trace()

    async def _within_time(self, session: ToolSession) -> None:
        try:
            async with deadline(session.seconds_left) as session.deadline:
                await self.act(session)
        except TimeoutError:
            if session.deadline is None or not session.deadline.is_over:
                raise
            if not session.is_over:
                limit_s = self.parts.config.user_timeout_s
                await session.fail("time_budget", f"the time is up, the limit for a user is {limit_s:g} seconds")
        except Exception:
            # Frameworks wrap what a tool or the LLM raised: that the user has ended is known here.
            if not session.is_over:
                raise
        if not session.is_over:
            await session.fail("invalid_reply", "; ".join(filter(None, (session.refusal, ENDED_WITHOUT_LIST))))
