"""The surrogate's settings."""

from __future__ import annotations

from typing import Literal

from toolrec.columns import PLAIN_BACKBONE
from toolrec.llm.config import EndpointSettings
from toolrec.tools.base import MAX_K
from toolrec.tools.settings import ToolSettings
from toolrec.util.settings import Settings, branch, setting

ReplyProtocol = Literal["tools", "text", "json", "auto"]
FinishPolicy = Literal["as_given", "final_rank"]
Obscure = Literal["titles", "ids", "both"]

DEFAULT_STRATEGY = "toolrec"


class SurrogateConfig(ToolSettings):
    """How a surrogate decides; all of it changes results.

    Source: paper section 4.1 (history of 10, 7 rounds, lists of 10).
    """

    protocol: ReplyProtocol = setting(
        "auto",
        "Native tool calls, the paper's text form `Thought i: … Action i: …`, JSON that the endpoint enforces by a schema, or "
        "(auto) the first of tools, json and text that the endpoint is seen to take; tools for the embedded rules.",
        flag="--protocol",
        changes_results=True,
    )
    rounds: int = setting(7, "Decisions before the forced finish.", flag="--rounds", changes_results=True, ge=1, le=1_000)
    list_length: int = setting(10, "Length of the final list.", changes_results=True, ge=1)
    finish_policy: FinishPolicy = setting(
        "as_given",
        "The final list as given, or one more LLM ranking of all candidates, as the authors' published code does.",
        flag="--finish-policy",
        changes_results=True,
    )
    user_token_budget: int | None = setting(
        None,
        "Tokens (prompt and reply) after which a user ends as `budget`.",
        flag="--user-token-budget",
        changes_results=True,
        ge=1,
    )
    user_timeout_s: float | None = setting(
        3600.0,
        "Seconds, over all attempts, after which a user ends as `budget`; waiting for our own limits does not count.",
        flag="--user-timeout-s",
        changes_results=True,
        gt=0,
    )
    strategy: str = setting(
        DEFAULT_STRATEGY,
        "How users are simulated: toolrec, llmrank, chat-rec, plan-once, zero-shot, no-cot, retrieval-only, rank-only, "
        "one-tool, or your own as MODULE:CLASS or entry point.",
        flag="--strategy",
        changes_results=True,
        stored_as="strategy",
    )
    obscure: Obscure | None = setting(
        None,
        "Neutral names in prompts in the place of titles, ids or both, against what an LLM knows by heart.",
        flag="--obscure",
        changes_results=True,
    )
    candidates: int = setting(
        20,
        "Length of the plain recommender's list that llmrank, chat-rec and rank-only begin with.",
        changes_results=True,
        ge=1,
        le=MAX_K,
    )
    bootstraps: int = setting(
        3, "Times that llmrank has the candidates ranked, each time in another order.", changes_results=True, ge=1, le=100
    )
    only_attribute: str = setting(
        PLAIN_BACKBONE, "The attribute of one-tool's retrieval tool; none is the plain recommender.", changes_results=True
    )


class CheckSettings(Settings):
    """What `toolrec llm check` tries."""

    protocol: Literal["all", "tools", "json", "text"] = setting("all", "Protocols to try.", flag="--protocol")
    llm: EndpointSettings = branch(EndpointSettings(timeout_s=60.0, max_attempts=2), "How the LLM endpoint is called.")
