"""Traces as rows: the columns of a run folder's Parquet files, and the way there from a trace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa

from toolrec.records import Round, Trace, Usage

Row = dict[str, Any]

_USAGE = pa.list_(
    pa.struct(
        [
            ("purpose", pa.string()),
            ("num_calls", pa.int64()),
            ("num_attempts", pa.int64()),
            ("prompt_tokens", pa.int64()),
            ("cached_tokens", pa.int64()),
            ("completion_tokens", pa.int64()),
            ("num_stored_replies", pa.int64()),
            ("saved_prompt_tokens", pa.int64()),
            ("saved_completion_tokens", pa.int64()),
            ("saved_cached_tokens", pa.int64()),
        ]
    )
)
_COUNTS = pa.list_(pa.struct([("kind", pa.string()), ("count", pa.int64())]))
_CANDIDATE = pa.struct(
    [
        ("item_index", pa.int32()),
        ("mark", pa.string()),
        ("round", pa.int16()),
        ("position", pa.int16()),
        ("score", pa.float64()),
    ]
)
_CANDIDATE_FIELDS = tuple(field.name for field in _CANDIDATE)
_USAGE_FIELDS = tuple(field.name for field in fields(Usage))

USERS_SCHEMA = pa.schema(
    [
        ("user_index", pa.int32()),
        ("user_id", pa.string()),
        ("attempt", pa.int16()),
        ("ended_by", pa.string()),
        ("error", pa.string()),
        ("final_items", pa.list_(pa.int32())),
        ("completed_items", pa.list_(pa.int32())),
        ("candidates", pa.list_(_CANDIDATE)),
        ("num_rounds", pa.int16()),
        ("num_tool_calls", pa.int16()),
        ("usage", _USAGE),
        ("counts", _COUNTS),
        ("started_s", pa.float64()),
        ("ended_s", pa.float64()),
    ]
)
ROUNDS_SCHEMA = pa.schema(
    [
        ("user_index", pa.int32()),
        ("attempt", pa.int16()),
        ("round", pa.int16()),
        ("thought", pa.string()),
        ("call", pa.string()),
        ("observation_text", pa.string()),
        ("observation_error", pa.string()),
        ("mark", pa.string()),
        ("items", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float64())),
        ("messages", pa.string()),
        ("usage", _USAGE),
        ("counts", _COUNTS),
        ("duration_s", pa.float64()),
    ]
)


def trace_rows(trace: Trace) -> tuple[Row, list[Row]]:
    """The user's row and its rounds' rows; round 0 holds the opening messages."""
    opening = _round_row(trace, 0, messages=trace.opening)
    rounds = [_round_of(trace, done) for done in trace.rounds]
    user = {
        "user_index": trace.user_index,
        "user_id": trace.user_id,
        "attempt": trace.attempt,
        "ended_by": trace.ended_by,
        "error": trace.error,
        "final_items": list(trace.final_items),
        "completed_items": list(trace.completed_items),
        "candidates": [{name: getattr(candidate, name) for name in _CANDIDATE_FIELDS} for candidate in trace.candidates],
        "num_rounds": len(trace.rounds),
        "num_tool_calls": sum(r.call is not None and r.call.name != "finish" for r in trace.rounds),
        "usage": usage_rows(trace.usage),
        "counts": _count_rows(trace.counts),
        "started_s": trace.started_s,
        "ended_s": trace.ended_s,
    }
    return user, [opening, *rounds]


def usage_rows(usage: Mapping[str, Usage]) -> list[Row]:
    """Usage by purpose as a list of structs."""
    return [
        {"purpose": purpose, **{name: getattr(used, name) for name in _USAGE_FIELDS}} for purpose, used in sorted(usage.items())
    ]


def usage_of(row: Mapping[str, Any]) -> Usage:
    """The usage in a row that has its fields among others; 0 for fields that are younger than the row."""
    return Usage(**{field.name: row.get(field.name) or 0 for field in fields(Usage)})


def _count_rows(counts: Mapping[str, int]) -> list[Row]:
    return [{"kind": kind, "count": count} for kind, count in sorted(counts.items())]


def _round_of(trace: Trace, done: Round) -> Row:
    seen = done.observation
    return _round_row(
        trace,
        done.number,
        messages=done.messages,
        thought=done.thought,
        call=json.dumps(asdict(done.call), ensure_ascii=False) if done.call else None,
        observation_text=seen.text if seen else "",
        observation_error=seen.error if seen else None,
        mark=seen.mark if seen else "",
        items=[item.item_index for item in seen.items] if seen else [],
        scores=[item.score for item in seen.items] if seen else [],
        usage=usage_rows(done.usage),
        counts=_count_rows(done.counts),
        duration_s=done.duration_s,
    )


def _round_row(trace: Trace, number: int, *, messages: tuple[dict[str, Any], ...], **filled: Any) -> Row:
    empty: Row = {
        "user_index": trace.user_index,
        "attempt": trace.attempt,
        "round": number,
        "thought": "",
        "call": None,
        "observation_text": "",
        "observation_error": None,
        "mark": "",
        "items": [],
        "scores": [],
        "messages": json.dumps(messages, ensure_ascii=False),
        "usage": [],
        "counts": [],
        "duration_s": 0.0,
    }
    return {**empty, **filled}
