"""A conversation that does not fit the model, made shorter: lists of earlier observations give way to a note."""

from __future__ import annotations

from collections.abc import Sequence

from toolrec.grammar import parse_item_line
from toolrec.records import Message

NOTE = "({count} lines of this list are left out: the conversation is too long for the model. Its items can still be named.)"


def without_earlier_lists(messages: Sequence[Message], *, num_opening: int) -> list[Message] | None:
    """The conversation with the lists of all observations but the latest left out; None where there is none to leave out.

    Args:
        messages: the conversation; it stays as it is.
        num_opening: messages at the beginning that are never touched.
    """
    answers = [
        number
        for number, message in enumerate(messages)
        if number >= num_opening and message["role"] in ("tool", "user") and _num_items(message["content"])
    ]
    if len(answers) < 2:
        return None
    shorter = list(messages)
    for number in answers[:-1]:
        shorter[number] = {**messages[number], "content": _without_list(messages[number]["content"])}
    return shorter


def _num_items(text: str) -> int:
    return sum(parse_item_line(line) is not None for line in text.split("\n"))


def _without_list(text: str) -> str:
    """The text with one note in the place of its item lines."""
    lines = text.split("\n")
    is_item = [parse_item_line(line) is not None for line in lines]
    kept = [line for line, is_left_out in zip(lines, is_item, strict=True) if not is_left_out]
    kept.insert(is_item.index(True), NOTE.format(count=sum(is_item)))
    return "\n".join(kept)
