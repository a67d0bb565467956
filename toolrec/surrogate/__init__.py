"""The LLM that plays a user: prompts, reply parsing, the loop."""

from toolrec.surrogate.base import OnRound, Strategy
from toolrec.surrogate.config import FinishPolicy, ReplyProtocol, SurrogateConfig
from toolrec.surrogate.loop import Surrogate
from toolrec.tools.templates import prompt_hashes

__all__ = [
    "FinishPolicy",
    "OnRound",
    "ReplyProtocol",
    "Strategy",
    "Surrogate",
    "SurrogateConfig",
    "prompt_hashes",
]
