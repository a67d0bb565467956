"""A run's users simulated in this process, without Ray: for a few users it takes a second where actors take ten.

What the users meet is the same: their strategy, tools and memory, the OpenAI client over HTTP, stores, run folder. What
is left out is what many users need: actors, flow control over all nodes, a memory that outlives a process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from toolrec.config import CompleteConfig
from toolrec.data import Dataset
from toolrec.llm import OpenAIChat
from toolrec.llm.embedded import EmbeddedOptions, run_in_thread
from toolrec.pipeline import SimulationPlan, user_tasks
from toolrec.recommenders import load_recommenders
from toolrec.records import Round, UserTask
from toolrec.runs.folder import RunFolder, read_attempts, read_users
from toolrec.runs.rows import Row
from toolrec.simulation.memory.actor import held_round
from toolrec.simulation.stopping import Stopping
from toolrec.simulation.user import simulate_user
from toolrec.stress.replies import with_faults
from toolrec.surrogate import Strategy
from toolrec.tools.build import build_tools
from toolrec.tools.local import LocalRetriever, tool_members
from toolrec.util.plugins import load_plugin

BLOCK_USERS = 50


def simulate_here(
    config: CompleteConfig,
    dataset: Dataset,
    folder: RunFolder,
    plan: SimulationPlan,
    stopping: Stopping,
    *,
    embedded: EmbeddedOptions | None = None,
    block_users: int = BLOCK_USERS,
) -> None:
    """Simulates the users that the run folder lacks; `toolrec.pipeline.SimulateUsers` without Ray.

    Args:
        embedded: options of the embedded endpoint.
        block_users: users that are simulated at once, and written together.
    """
    done = set(read_users(config.folder)["user_index"].tolist())
    waiting = [user_index for user_index in plan.user_indexes if user_index not in done]
    if not waiting:
        return
    with contextlib.ExitStack() as stack:
        llm = plan.llm
        if config.is_embedded:
            server = run_in_thread(embedded)
            stack.callback(server.stop)
            llm = llm.replaced(base_url=server.base_url)
        tasks = list(user_tasks(dataset, config, waiting, attempts=read_attempts(config.folder)))
        members = tool_members(load_recommenders(config.recommenders, dataset), config.tools.attributes)
        retriever = LocalRetriever(members, mask_seen=config.surrogate.mask_seen)
        blocks = [tasks[start : start + block_users] for start in range(0, len(tasks), block_users)]
        stopping.run(_simulated(config, dataset, folder, OpenAIChat(llm), retriever, blocks))


async def _simulated(
    config: CompleteConfig,
    dataset: Dataset,
    folder: RunFolder,
    client: OpenAIChat,
    retriever: LocalRetriever,
    blocks: Sequence[Sequence[UserTask]],
) -> None:
    pool, surrogate = dataset.pool, config.surrogate
    async with client:
        stored = config.reply_stores().wrap(client.config, None if config.stores.replay else client)
        llm = with_faults(stored, pool, config.stress, is_checked=surrogate.memory_check)
        tools = build_tools(retriever, rank_tool=config.tools.rank_tool, llm=llm, pool=pool, config=surrogate)
        strategy: Strategy = load_plugin("strategy", surrogate.strategy)(config=surrogate, pool=pool, llm=llm, tools=tools)
        for block in blocks:
            ended = await asyncio.gather(*(_one(strategy, task, config) for task in block))
            folder.journal([entry for _, _, spend in ended for entry in spend])
            folder.commit([user for user, _, _ in ended], [row for _, rows, _ in ended for row in rows])


async def _one(strategy: Strategy, task: UserTask, config: CompleteConfig) -> tuple[Row, list[Row], list[Row]]:
    """A user's row, its rounds' rows, and what they spent."""
    spend: list[Row] = []

    async def keep(done: Round) -> None:
        spend.extend(held_round(task.user_index, task.attempt, done).spend)

    limit = config.llm.user_max_failed_requests
    user_row, round_rows = await simulate_user(strategy, task, config=config.surrogate, max_failed_requests=limit, keep=keep)
    return user_row, round_rows, spend
