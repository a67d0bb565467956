"""The surrogate's prompts, from templates; what is the same for every user is rendered once."""

from __future__ import annotations

from collections.abc import Sequence

from toolrec.columns import PLAIN_BACKBONE
from toolrec.grammar import ROUNDS_LEFT_LABEL, clean
from toolrec.memory import PoolDirectory
from toolrec.records import Message, UserTask
from toolrec.surrogate.config import SurrogateConfig
from toolrec.tools.lines import history_lines
from toolrec.tools.templates import render

_DESCRIPTION_CHARACTERS = 160


class Prompts:
    """Writes the opening messages and the line that ends every observation.

    Args:
        config: the surrogate's settings.
        directory: the pool directory.
        tool_names: `retrieve`, and `rank` where there is one.
        attributes: what the retrieval tool knows, without `none`.
    """

    def __init__(
        self, config: SurrogateConfig, directory: PoolDirectory, *, tool_names: Sequence[str], attributes: Sequence[str]
    ) -> None:
        self._config = config
        self._directory = directory
        self._attributes = (PLAIN_BACKBONE, *attributes)
        pool = directory.pool
        self._system = render(
            "system.jinja",
            domain=pool.domain,
            protocol=config.protocol,
            rounds=config.rounds,
            list_length=config.list_length,
            max_k=config.max_k,
            mask_seen=config.mask_seen,
            tool_names=list(tool_names),
            attributes=[(name, self._description(name)) for name in attributes],
            example_attribute=attributes[0] if attributes else PLAIN_BACKBONE,
        )
        self._last = render("last_round.jinja", domain=pool.domain, protocol=config.protocol, list_length=config.list_length)

    def opening(self, task: UserTask) -> tuple[Message, ...]:
        """System message and the user's task."""
        content = render(
            "task.jinja",
            attributes=self._attributes,
            rounds=self._config.rounds,
            list_length=self._config.list_length,
            history=history_lines(self._directory, task.history, task.ratings, length=self._config.prompt_history_length),
        )
        return {"role": "system", "content": self._system}, {"role": "user", "content": content}

    def with_rounds_left(self, text: str, rounds_left: int) -> str:
        """An observation with what comes next below it."""
        return f"{text}\n{self._last}" if rounds_left == 0 else f"{text}\n{ROUNDS_LEFT_LABEL} {rounds_left}"

    def _description(self, attribute: str) -> str:
        spec = self._directory.pool.attributes.get(attribute)
        return clean(spec.description, limit=_DESCRIPTION_CHARACTERS) if spec else ""
