"""The surrogate's settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from toolrec.errors import ConfigError
from toolrec.tools.settings import ToolSettings

ReplyProtocol = Literal["tools", "text"]
FinishPolicy = Literal["as_given", "final_rank"]


@dataclass(frozen=True, kw_only=True)
class SurrogateConfig(ToolSettings):
    """How a surrogate decides; all of it changes results.

    Args:
        protocol: `tools` for native tool calls, `text` for the paper's `Thought i: … Action i: …`.
        rounds: decisions before the forced finish.
        list_length: length of the final list.
        finish_policy: `as_given` keeps the list of `Finish`; `final_rank` replaces it by one more LLM ranking of all
            candidates, as the authors' published code does.
        user_token_budget: tokens (prompt and completion) after which a user ends as `budget`; None for no limit.
        user_timeout_s: seconds, over all attempts, after which a user ends as `budget`, also in the middle of a call that
            hangs; waiting for our own limits does not count. None for no limit.

    Source: paper section 4.1 (history of 10, 7 rounds, lists of 10).
    """

    protocol: ReplyProtocol = "tools"
    rounds: int = 7
    list_length: int = 10
    finish_policy: FinishPolicy = "as_given"
    user_token_budget: int | None = None
    user_timeout_s: float | None = 3600.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("protocol", get_args(ReplyProtocol)), ("finish_policy", get_args(FinishPolicy))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"unknown {name}", value=getattr(self, name), allowed=allowed)
        for name in ("rounds", "list_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1", value=getattr(self, name))
        if self.user_token_budget is not None and self.user_token_budget < 1:
            raise ConfigError("user_token_budget must be at least 1 token", value=self.user_token_budget)
        if self.user_timeout_s is not None and not 0 < self.user_timeout_s < math.inf:
            raise ConfigError("user_timeout_s must be a positive number of seconds", value=self.user_timeout_s)
