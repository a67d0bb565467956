"""Settings that the tools and the surrogate share."""

from __future__ import annotations

from dataclasses import dataclass

from toolrec.errors import ConfigError
from toolrec.tools.base import MAX_K


@dataclass(frozen=True, kw_only=True)
class ToolSettings:
    """How tools answer.

    Args:
        prompt_history_length: items of the history that a prompt shows, the latest ones.
        default_k: list length of a call that gives none.
        max_k: the longest list that a call may ask for.
        max_reasks: how often an unusable reply is asked for again, in each round and each ranking.
        mask_seen: whether items of the history are refused in every list.
        rank_max_candidates: candidates that a rank prompt shows, the newest ones.
        shuffle_rank_candidates: seed that shuffles the candidates of a rank prompt; None shows the newest first.
        memory_check: whether lists of the LLM are checked against the pool directory and asked for again. Without it
            only exact ids are read, the rest stays empty: an ablation, never a way for unknown items to get in.
    """

    prompt_history_length: int = 10
    default_k: int = 20
    max_k: int = MAX_K
    max_reasks: int = 3
    mask_seen: bool = True
    rank_max_candidates: int = 60
    shuffle_rank_candidates: int | None = None
    memory_check: bool = True

    def __post_init__(self) -> None:
        for name in ("prompt_history_length", "default_k", "max_k", "rank_max_candidates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1", value=getattr(self, name))
        if self.max_k > MAX_K:
            raise ConfigError("max_k is too large", value=self.max_k, allowed=f"1 to {MAX_K}")
        if self.default_k > self.max_k:
            raise ConfigError("default_k is larger than max_k", value=self.default_k, allowed=f"1 to {self.max_k}")
        if self.max_reasks < 0:
            raise ConfigError("max_reasks may not be negative", value=self.max_reasks)
