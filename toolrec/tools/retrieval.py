"""The attribute-oriented retrieval tool."""

from __future__ import annotations

from dataclasses import replace

from toolrec.columns import PLAIN_BACKBONE
from toolrec.data import Pool
from toolrec.errors import ToolError
from toolrec.memory import Memory, PoolDirectory
from toolrec.records import Observation, ToolCall
from toolrec.tools.base import Retriever, ToolContext
from toolrec.tools.calls import attribute_key, checked_k, known_attribute
from toolrec.tools.lines import observation_text, scored_lines
from toolrec.tools.settings import ToolSettings

REPEAT_HINT = "you have made this very call before, and the list is the same; another attribute or a larger K brings others"


class RetrievalTool:
    """`Retrieve[attribute, K]`: the K best items by the attribute's recommender.

    Args:
        retriever: where lists come from.
        pool: the item pool directory.
        config: K's default and bounds, masking.

    Source: paper section 3.3.2. An unknown attribute is an error that names the known ones (the authors' code ranks by
    LLM instead).
    """

    name = "retrieve"

    def __init__(self, retriever: Retriever, pool: Pool, config: ToolSettings | None = None) -> None:
        self._retriever = retriever
        self._directory = PoolDirectory.of(pool)
        self._config = config or ToolSettings()
        self.attributes = tuple(retriever.attributes)
        self._names = {attribute_key(name): name for name in (PLAIN_BACKBONE, *self.attributes)}

    async def call(self, arguments: ToolCall, *, context: ToolContext) -> Observation:
        """Retrieves; the same call gives the same list, and a repeat gets a hint.

        Raises:
            ToolError: unknown attribute, or K out of range.
        """
        call = self._understood(arguments)
        assert call.attribute is not None and call.k is not None
        raw = await self._retriever.retrieve(call.attribute, context.history, k=call.k)
        memory = Memory(self._directory, context.history, mask_seen=self._config.mask_seen)
        items, counts = memory.check_items(raw)
        is_repeat = self._key(call) in map(self._key_of_earlier, context.previous_calls)
        if is_repeat:
            counts["repeat"] = 1
        lines = scored_lines(self._directory, items)
        return Observation(
            text=observation_text(f"Retrieve[{call.attribute}, {call.k}]", lines, hint=REPEAT_HINT if is_repeat else ""),
            items=tuple(items),
            mark=call.mark,
            is_repeat=is_repeat,
            counts=counts,
        )

    def _understood(self, call: ToolCall) -> ToolCall:
        return replace(
            call,
            attribute=known_attribute(call, self._names),
            k=checked_k(call, default_k=self._config.default_k, max_k=self._config.max_k),
        )

    def _key(self, call: ToolCall) -> tuple[str | None, int | None]:
        return call.attribute, call.k

    def _key_of_earlier(self, call: ToolCall) -> tuple[str | None, int | None] | None:
        if call.name != self.name:
            return None
        try:
            return self._key(self._understood(call))
        except ToolError:
            return None
