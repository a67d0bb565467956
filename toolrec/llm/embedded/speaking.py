"""Writing replies: from a decision to the message of a chat completion, spoilt by seeded faults where asked."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from toolrec.llm.embedded.options import EmbeddedOptions
from toolrec.llm.embedded.policy import Decision
from toolrec.llm.replies import cut_at
from toolrec.records import Message
from toolrec.util.misspell import misspelt

INVENTED_PREFIX = "invented-"


def write_message(decision: Decision, *, number: int, is_native: bool, stop: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The assistant message and its finish reason.

    Args:
        decision: what to say.
        number: the decision's own number, as in `Thought 2`.
        is_native: a tool call instead of the text form.
        stop: texts at which a text reply ends.
    """
    if decision.name == "list":
        text = "\n".join(f"<{item.item_id}>" for item in decision.items)
    elif decision.name == "plan":
        text = "\n".join(map(_action, decision.calls))
    elif is_native:
        function = {"name": decision.name, "arguments": json.dumps(_arguments(decision))}
        call = {"id": f"call_{number}", "type": "function", "function": function}
        return {"role": "assistant", "content": decision.thought, "tool_calls": [call]}, "tool_calls"
    else:
        thought = f"Thought {number}: {decision.thought}\n" if decision.thought else ""
        text = f"{thought}Action {number}: {_action(decision)}"
    return {"role": "assistant", "content": cut_at(text, stop)}, "stop"


def spoil(decision: Decision, options: EmbeddedOptions, messages: Sequence[Message]) -> tuple[Decision, bool]:
    """The decision with the faults that the options ask for, and whether the reply is to be malformed.

    The draw depends on the seed and the messages alone, so the same conversation meets the same faults.
    """
    text = json.dumps([options.seed, messages], sort_keys=True)
    draw = random.Random(hashlib.blake2b(text.encode(), digest_size=8).digest())
    is_malformed = draw.random() < options.share_malformed
    has_typo, is_invented, is_short = (
        draw.random() < share for share in (options.share_typos, options.share_invented, options.share_short)
    )
    items = list(decision.items)
    if is_short:
        items = items[: len(items) // 2]
    if has_typo and items:
        place = draw.randrange(len(items))
        name = items[place].title or items[place].item_id  # an id may be all digits
        items[place] = replace(items[place], item_id=misspelt(name, draw, may_swap=str.isalnum))
    if is_invented and items:
        place = draw.randrange(len(items))
        items[place] = replace(items[place], item_id=f"{INVENTED_PREFIX}{draw.getrandbits(32):08x}")
    return replace(decision, items=tuple(items)), is_malformed


def malform(message: dict[str, Any]) -> dict[str, Any]:
    """The message with its action or list broken off."""
    if message.get("tool_calls"):
        call = message["tool_calls"][0]
        function = {**call["function"], "arguments": call["function"]["arguments"][: len(call["function"]["arguments"]) // 2]}
        return {**message, "tool_calls": [{**call, "function": function}]}
    return {**message, "content": "I would rather think about this a little longer."}


def _arguments(decision: Decision) -> dict[str, Any]:
    if decision.name == "finish":
        return {"items": [item.item_id for item in decision.items]}
    return {"attribute": decision.attribute, "k": decision.k}


def _action(decision: Decision) -> str:
    if decision.name == "finish":
        return "Finish[" + ", ".join(f"<{item.item_id}>" for item in decision.items) + "]"
    return f"{decision.name.capitalize()}[{decision.attribute}, {decision.k}]"
