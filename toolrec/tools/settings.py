"""Settings that the tools and the surrogate share."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from toolrec.errors import ConfigError
from toolrec.tools.base import MAX_K
from toolrec.util.settings import Settings, setting


class ToolSettings(Settings):
    """How tools answer; all of it changes results."""

    prompt_history_length: int = setting(
        10,
        "Items of the history that the surrogate sees, the latest ones.",
        flag="--prompt-history-length",
        changes_results=True,
        ge=1,
    )
    default_k: int = setting(20, "List length of a tool call that gives none.", changes_results=True, ge=1, le=MAX_K)
    max_k: int = setting(MAX_K, "The longest list that a tool call may ask for.", changes_results=True, ge=1, le=MAX_K)
    max_reasks: int = setting(
        3,
        "Times that an unusable reply is asked for again, in each round and each ranking.",
        flag="--max-reasks",
        changes_results=True,
        ge=0,
        le=100,
    )
    mask_seen: bool = setting(True, "Leave the history's items out of every list.", flag="--mask-seen", changes_results=True)
    rank_max_candidates: int = setting(60, "Candidates that a rank prompt shows, the newest ones.", changes_results=True, ge=1)
    shuffle_rank_candidates: int | None = setting(
        None,
        "Seed that shuffles the candidates of a rank prompt; without it the newest come first.",
        flag="--shuffle-rank-candidates",
        changes_results=True,
    )
    memory_check: bool = setting(
        True,
        "Check the LLM's lists against the pool and ask again. Off, an ablation, only exact ids are read; no unknown item "
        "gets in either way.",
        changes_results=True,
    )

    @model_validator(mode="after")
    def _default_within_longest(self) -> Self:
        if self.default_k > self.max_k:
            raise ConfigError("default_k is larger than max_k", value=self.default_k, allowed=f"1 to {self.max_k}")
        return self
