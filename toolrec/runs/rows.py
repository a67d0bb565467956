"""Traces as rows: the columns of a run folder's Parquet files, and the way there from a trace."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa

from toolrec.records import Candidate, Observation, RankedItem, Round, ToolCall, Trace, Usage

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
        ("strategy", pa.string()),
        ("ended_by", pa.string()),
        ("error", pa.string()),
        ("failure_kind", pa.string()),
        ("http_status", pa.int16()),
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
        ("failure_kind", pa.string()),
        ("http_status", pa.int16()),
        ("mark", pa.string()),
        ("items", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float64())),
        ("messages", pa.string()),
        ("usage", _USAGE),
        ("counts", _COUNTS),
        ("duration_s", pa.float64()),
    ]
)

ADDED_COLUMNS = frozenset(("strategy", "failure_kind", "http_status"))
"""Columns that blocks of earlier versions lack."""


def with_added_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A stored block in today's columns: those that it lacks are null, or told from the older ones."""
    for name in schema.names:
        if name not in table.column_names:
            told = _failure_kinds(table) if name == "failure_kind" and "ended_by" in table.column_names else [None] * len(table)
            table = table.append_column(name, pa.array(told, schema.field(name).type))
    return table.select(schema.names).cast(schema)


def _failure_kinds(users: pa.Table) -> list[str | None]:
    """Failure kinds of users whose block has no such column: a cancelled user's was in its counts."""
    kinds: list[str | None] = []
    for ended_by, counts in zip(users["ended_by"].to_pylist(), users["counts"].to_pylist(), strict=True):
        is_cancelled = ended_by == "cancelled" and len(counts) > 0
        kinds.append(counts[0]["kind"] if is_cancelled else ended_by if ended_by == "invalid_reply" else None)
    return kinds


def trace_rows(trace: Trace) -> tuple[Row, list[Row]]:
    """The user's row and its rounds' rows; round 0 holds the opening messages."""
    opening = _round_row(trace, 0, messages=trace.opening)
    rounds = [_round_of(trace, done) for done in trace.rounds]
    user = {
        "user_index": trace.user_index,
        "user_id": trace.user_id,
        "attempt": trace.attempt,
        "strategy": trace.strategy or None,
        "ended_by": trace.ended_by,
        "error": trace.error,
        "failure_kind": trace.failure_kind,
        "http_status": trace.http_status,
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


def trace_of(user: Row, rounds: Sequence[Row]) -> Trace:
    """The trace again from its rows, as Arrow gives them to Python.

    What an observation alone spent and counted is not stored apart: it is in its round's `usage` and `counts`.

    Args:
        user: the user's row.
        rounds: the rows of the same attempt, in order, round 0 first.
    """
    opening = [tuple(json.loads(row["messages"])) for row in rounds if row["round"] == 0]
    return Trace(
        user_index=user["user_index"],
        user_id=user["user_id"],
        attempt=user["attempt"],
        opening=opening[0] if opening else (),
        rounds=tuple(_round_record(row) for row in rounds if row["round"] > 0),
        final_items=tuple(user["final_items"]),
        completed_items=tuple(user["completed_items"]),
        candidates=tuple(Candidate(**candidate) for candidate in user["candidates"]),
        ended_by=user["ended_by"],
        error=user["error"],
        failure_kind=user["failure_kind"],
        http_status=user["http_status"],
        usage=_usage_by_purpose(user),
        counts=_counts_by_kind(user),
        started_s=user["started_s"],
        ended_s=user["ended_s"],
        strategy=user["strategy"] or "",
    )


def _round_record(row: Row) -> Round:
    call = json.loads(row["call"]) if row["call"] else None
    counts = _counts_by_kind(row)
    seen = Observation(
        text=row["observation_text"],
        items=tuple(RankedItem(item_index=item, score=score) for item, score in zip(row["items"], row["scores"], strict=True)),
        mark=row["mark"],
        error=row["observation_error"],
        failure_kind=row["failure_kind"],
        http_status=row["http_status"],
        is_repeat="repeat" in counts,
    )
    return Round(
        number=row["round"],
        thought=row["thought"],
        call=None if call is None else ToolCall(**{**call, "items": tuple(call["items"])}),
        observation=seen if seen.text or seen.items or seen.error is not None else None,
        messages=tuple(json.loads(row["messages"])),
        usage=_usage_by_purpose(row),
        counts=counts,
        duration_s=row["duration_s"],
    )


def _usage_by_purpose(row: Row) -> dict[str, Usage]:
    return {part["purpose"]: usage_of(part) for part in row["usage"]}


def _counts_by_kind(row: Row) -> dict[str, int]:
    return {entry["kind"]: entry["count"] for entry in row["counts"]}


def usage_rows(usage: Mapping[str, Usage]) -> list[Row]:
    """Usage by purpose as a list of structs."""
    return [
        {"purpose": purpose, **{name: getattr(used, name) for name in _USAGE_FIELDS}} for purpose, used in sorted(usage.items())
    ]


def usage_of(row: Mapping[str, Any]) -> Usage:
    """The usage in a row that has its fields among others; 0 for fields that are younger than the row."""
    return Usage(**{field.name: row.get(field.name) or 0 for field in fields(Usage)})


def sum_of_usage(parts: Iterable[Mapping[str, Any]]) -> Usage:
    """The sum of `usage_of` over rows."""
    return sum(map(usage_of, parts), Usage())


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
        failure_kind=seen.failure_kind if seen else None,
        http_status=seen.http_status if seen else None,
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
        "failure_kind": None,
        "http_status": None,
        "mark": "",
        "items": [],
        "scores": [],
        "messages": json.dumps(messages, ensure_ascii=False),
        "usage": [],
        "counts": [],
        "duration_s": 0.0,
    }
    return {**empty, **filled}
