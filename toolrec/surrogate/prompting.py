"""The surrogate's prompts, from templates; what is the same for every user is rendered once."""

from __future__ import annotations

from dataclasses import dataclass

from toolrec.columns import PLAIN_BACKBONE
from toolrec.data import Pool
from toolrec.grammar import ROUNDS_LEFT_LABEL, clean
from toolrec.memory import PoolDirectory
from toolrec.records import Message, UserTask
from toolrec.surrogate.config import SurrogateConfig
from toolrec.tools.lines import history_lines
from toolrec.tools.templates import render

_DESCRIPTION_CHARACTERS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a surrogate may do.

    `attributes` are those of the retrieval tool without `none`, and `has_plain` tells whether it takes `none` too;
    `has_thoughts` whether a call is thought through in writing, `has_examples` whether the prompt shows how;
    `num_given` is the length of a plain list that the surrogate is given before its first decision, 0 where there is none.
    """

    tool_names: tuple[str, ...]
    attributes: tuple[str, ...]
    has_plain: bool = True
    has_thoughts: bool = True
    has_examples: bool = True
    num_given: int = 0

    @property
    def all_attributes(self) -> tuple[str, ...]:
        """What `retrieve` takes."""
        return (PLAIN_BACKBONE, *self.attributes) if self.has_plain else self.attributes


class Prompts:
    """Writes the opening messages and the line that ends every observation.

    Args:
        config: the surrogate's settings.
        directory: the pool directory.
        offer: what the surrogate may do.
    """

    def __init__(self, config: SurrogateConfig, directory: PoolDirectory, offer: Offer) -> None:
        self._config = config
        self._directory = directory
        self._offer = offer
        attributes = offer.attributes
        pool = directory.pool
        self._system = render(
            "system.jinja",
            domain=pool.domain,
            protocol=config.protocol,
            rounds=config.rounds,
            list_length=config.list_length,
            max_k=config.max_k,
            mask_seen=config.mask_seen,
            tool_names=list(offer.tool_names),
            attributes=[(name, described(pool, name)) for name in attributes],
            example_attribute=attributes[0] if attributes else PLAIN_BACKBONE,
            has_plain=offer.has_plain,
            has_thoughts=offer.has_thoughts,
            has_examples=offer.has_examples,
            num_given=offer.num_given,
        )
        self._last = render("last_round.jinja", domain=pool.domain, protocol=config.protocol, list_length=config.list_length)

    def opening(self, task: UserTask) -> tuple[Message, ...]:
        """System message and the user's task."""
        content = render(
            "task.jinja",
            attributes=self._offer.all_attributes,
            has_thoughts=self._offer.has_thoughts,
            rounds=self._config.rounds,
            list_length=self._config.list_length,
            history=history_lines(self._directory, task.history, task.ratings, length=self._config.prompt_history_length),
        )
        return {"role": "system", "content": self._system}, {"role": "user", "content": content}

    def with_rounds_left(self, text: str, rounds_left: int) -> str:
        """An observation with what comes next below it."""
        return f"{text}\n{self._last}" if rounds_left == 0 else f"{text}\n{ROUNDS_LEFT_LABEL} {rounds_left}"


def described(pool: Pool, attribute: str) -> str:
    """What the pool says of an attribute, in one line."""
    spec = pool.attributes.get(attribute)
    return clean(spec.description, limit=_DESCRIPTION_CHARACTERS) if spec else ""
