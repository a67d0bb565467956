"""Rounds as lines of JSON: how the shared memory keeps them and writes them to its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from toolrec.records import Observation, RankedItem, Round, ToolCall, Usage

_USAGE = tuple(field.name for field in fields(Usage))


def encode_round(done: Round) -> bytes:
    """One line of JSON without newline. Fields are listed by hand for speed: every round of every user is encoded."""
    call, seen = done.call, done.observation
    record = {
        "number": done.number,
        "thought": done.thought,
        "call": None if call is None else [call.name, call.attribute, call.k, call.items, call.call_id],
        "observation": None if seen is None else _observation(seen),
        "messages": done.messages,
        "usage": encode_usage(done.usage),
        "counts": done.counts,
        "duration_s": done.duration_s,
    }
    return _ENCODER.encode(record).encode()


def decode_round(line: bytes) -> Round:
    """The round that was encoded."""
    record = json.loads(line)
    call, seen = record["call"], record["observation"]
    return Round(
        number=record["number"],
        thought=record["thought"],
        call=None if call is None else _call(call),
        observation=None if seen is None else _seen(seen),
        messages=tuple(record["messages"]),
        usage=decode_usage(record["usage"]),
        counts=record["counts"],
        duration_s=record["duration_s"],
    )


def encode_usage(usage: Mapping[str, Usage]) -> dict[str, list[int]]:
    """Usage by purpose as lists of its fields in their order."""
    return {purpose: [getattr(used, name) for name in _USAGE] for purpose, used in usage.items()}


def decode_usage(usage: Mapping[str, list[int]]) -> dict[str, Usage]:
    """Usage by purpose."""
    # Fewer fields where a killed run of an earlier version is resumed: new ones come last.
    return {purpose: Usage(**dict(zip(_USAGE, used, strict=False))) for purpose, used in usage.items()}


def _observation(seen: Observation) -> dict[str, Any]:
    return {
        "text": seen.text,
        "items": [item.item_index for item in seen.items],
        "scores": [item.score for item in seen.items],
        "mark": seen.mark,
        "error": seen.error,
        "failure_kind": seen.failure_kind,
        "http_status": seen.http_status,
        "is_repeat": seen.is_repeat,
        "usage": encode_usage(seen.usage),
        "counts": seen.counts,
    }


def _seen(record: Mapping[str, Any]) -> Observation:
    listed = zip(record["items"], record["scores"], strict=True)
    return Observation(
        text=record["text"],
        items=tuple(RankedItem(item_index=index, score=score) for index, score in listed),
        mark=record["mark"],
        error=record["error"],
        failure_kind=record.get("failure_kind"),  # None in the rounds of an earlier version
        http_status=record.get("http_status"),
        is_repeat=record["is_repeat"],
        usage=decode_usage(record["usage"]),
        counts=record["counts"],
    )


def _call(record: list[Any]) -> ToolCall:
    name, attribute, k, items, call_id = record
    return ToolCall(name=name, attribute=attribute, k=k, items=tuple(items), call_id=call_id)


_ENCODER = json.JSONEncoder(ensure_ascii=True, check_circular=False, separators=(",", ":"))
"""ASCII: a lone surrogate from an LLM passes too."""
