"""Flat tables, one a level: no nested column, so that any program reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from toolrec.evaluation.traces import action_text
from toolrec.exports.source import Source, first_position, is_finished, ndcg_at_10, position_of
from toolrec.records import Trace, Usage
from toolrec.util.files import write_json

TableFormat = Literal["parquet", "csv"]
Row = dict[str, Any]
BATCH_ROWS = 20_000

_USER = (
    ("user_index", pa.int32(), "the user's number in the data set, from 1"),
    ("user_id", pa.string(), "the user's id in the data set"),
)
_SPENT = (
    ("num_llm_calls", pa.int64(), "completed LLM calls"),
    ("prompt_tokens", pa.int64(), "tokens of prompts, cached ones included"),
    ("cached_tokens", pa.int64(), "of these, what the endpoint had in its cache"),
    ("completion_tokens", pa.int64(), "tokens of replies"),
    ("cost_usd", pa.float64(), "dollars; null where no price is known"),
)
_ITEM = (
    ("item_index", pa.int32(), "the item's number in the pool; 0 for an empty slot"),
    ("item_id", pa.string(), "the item's id; null for an empty slot or without the data set"),
    ("title", pa.string(), "the item's title, likewise"),
    ("is_target", pa.bool_(), "whether it is a held-out item; null without the data set"),
)
_ROUND = ("round", pa.int16(), "the round, from 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One level: its columns as name, type and meaning, and the rows that a trace has in it."""

    meaning: str
    columns: tuple[tuple[str, pa.DataType, str], ...]
    rows: Callable[[Source, Trace], Iterable[Row]]

    @property
    def schema(self) -> pa.Schema:
        """The columns for Arrow; Parquet keeps the meanings as the fields' metadata."""
        return pa.schema([pa.field(name, kind, metadata={"description": meaning}) for name, kind, meaning in self.columns])


def _spent(source: Source, usage: Mapping[str, Usage]) -> Row:
    used = sum(usage.values(), Usage())
    return {
        "num_llm_calls": used.num_calls,
        "prompt_tokens": used.prompt_tokens,
        "cached_tokens": used.cached_tokens,
        "completion_tokens": used.completion_tokens,
        "cost_usd": source.run.price.cost_usd(used) if source.run.price else None,
    }


def _item(source: Source, item_index: int, targets: Sequence[int] | None) -> Row:
    return {
        "item_index": item_index,
        "item_id": source.item_id(item_index),
        "title": source.title(item_index),
        "is_target": None if targets is None else item_index in targets,
    }


def _of_user(trace: Trace) -> Row:
    return {"user_index": trace.user_index, "user_id": trace.user_id}


def _users(source: Source, trace: Trace) -> Iterator[Row]:
    targets = source.targets(trace)
    target = targets[0] if targets else None
    yield {
        **_of_user(trace),
        "ended_by": trace.ended_by,
        "is_finished": is_finished(trace),
        "failure_kind": trace.failure_kind,
        "http_status": trace.http_status,
        "error": trace.error,
        "history_length": len(source.dataset.history(trace.user_index, source.target_split)) if source.dataset else None,
        "target_index": target,
        "num_targets": None if targets is None else len(targets),
        "target_id": source.item_id(target) if target else None,
        "target_title": source.title(target) if target else None,
        "target_position": position_of(trace, targets),
        "ndcg_at_10": ndcg_at_10(trace, targets),
        "is_target_retrieved": None if targets is None else any(one.item_index in targets for one in trace.candidates),
        "num_rounds": len(trace.rounds),
        "num_tool_calls": sum(done.call is not None and done.call.name != "finish" for done in trace.rounds),
        "num_reasks": trace.counts.get("reask", 0),
        "num_candidates": len({one.item_index for one in trace.candidates}),
        **_spent(source, trace.usage),
        "started_s": trace.started_s,
        "ended_s": trace.ended_s,
    }


def _rounds(source: Source, trace: Trace) -> Iterator[Row]:
    targets = source.targets(trace)
    for done in trace.rounds:
        seen = done.observation
        items = [item.item_index for item in seen.items] if seen else []
        yield {
            **_of_user(trace),
            "round": done.number,
            "thought": done.thought,
            "action": action_text(done.call),
            "observation": seen.text if seen else "",
            "error": seen.error if seen else None,
            "num_items": len(items),
            "target_position": None if targets is None else first_position(items, targets),
            "num_reasks": done.counts.get("reask", 0),
            **_spent(source, done.usage),
            "duration_s": done.duration_s,
        }


def _calls(source: Source, trace: Trace) -> Iterator[Row]:
    targets = source.targets(trace)
    for done in trace.rounds:
        if done.call is None or done.call.name == "finish":
            continue
        items = [item.item_index for item in done.observation.items] if done.observation else []
        yield {
            **_of_user(trace),
            "round": done.number,
            "tool": done.call.name,
            "attribute": done.call.attribute,
            "k": done.call.k,
            "num_items": len(items),
            "is_repeat": "repeat" in done.counts,
            "error": done.observation.error if done.observation else None,
            "target_position": None if targets is None else first_position(items, targets),
        }


def _candidates(source: Source, trace: Trace) -> Iterator[Row]:
    targets = source.targets(trace)
    for one in trace.candidates:
        row = {"mark": one.mark, "round": one.round, "position": one.position, "score": one.score}
        yield {**_of_user(trace), **row, **_item(source, one.item_index, targets)}


def _lists(source: Source, trace: Trace) -> Iterator[Row]:
    targets = source.targets(trace)
    for name, items in (("given", trace.final_items), ("completed", trace.completed_items)):
        for position, item in enumerate(items, start=1):
            yield {**_of_user(trace), "list": name, "position": position, **_item(source, item, targets)}


def _messages(source: Source, trace: Trace) -> Iterator[Row]:
    numbered = [(0, message) for message in trace.opening]
    numbered += [(done.number, message) for done in trace.rounds for message in done.messages]
    for number, (round_number, message) in enumerate(numbered, start=1):
        content, calls = message.get("content"), message.get("tool_calls")
        yield {
            **_of_user(trace),
            "number": number,
            "round": round_number,
            "role": str(message.get("role", "")),
            "content": content if isinstance(content, str) or content is None else json.dumps(content, ensure_ascii=False),
            "tool_calls": json.dumps(calls, ensure_ascii=False) if calls else None,
            "tool_call_id": message.get("tool_call_id"),
        }


TABLES: Mapping[str, Table] = {
    "users": Table(
        meaning="one row for each user that has ended",
        columns=(
            *_USER,
            ("ended_by", pa.string(), "`finish`, `forced_finish`, `budget`, `llm_failure`, `invalid_reply` or `cancelled`"),
            ("is_finished", pa.bool_(), "whether the surrogate finished; otherwise the user counts as a miss"),
            ("failure_kind", pa.string(), "why it failed; null if it finished"),
            ("http_status", pa.int16(), "of the endpoint's answer behind a failure"),
            ("error", pa.string(), "the failure in words"),
            ("history_length", pa.int32(), "items of the history in the data set; null without it"),
            ("target_index", pa.int32(), "the held-out item, of several the next one; null without the data set"),
            ("num_targets", pa.int32(), "held-out items; 1 under leave-one-out"),
            ("target_id", pa.string(), "its id"),
            ("target_title", pa.string(), "its title"),
            ("target_position", pa.int16(), "1-based position in the list as given, of several targets the first; 0 for a miss"),
            ("ndcg_at_10", pa.float64(), "the user's NDCG@10; with one target `1 / log2(position + 1)` within the first 10"),
            ("is_target_retrieved", pa.bool_(), "whether a tool brought a target into memory"),
            ("num_rounds", pa.int16(), "decisions"),
            ("num_tool_calls", pa.int16(), "decisions that called a tool"),
            ("num_reasks", pa.int32(), "replies that were not accepted"),
            ("num_candidates", pa.int32(), "different items in memory"),
            *_SPENT,
            ("started_s", pa.float64(), "seconds since the epoch"),
            ("ended_s", pa.float64(), "seconds since the epoch"),
        ),
        rows=_users,
    ),
    "rounds": Table(
        meaning="one row for each round",
        columns=(
            *_USER,
            _ROUND,
            ("thought", pa.string(), "what the surrogate wrote before its action"),
            ("action", pa.string(), "as in `Retrieve[genre, 20]` or `Finish[10 items]`; empty where none could be read"),
            ("observation", pa.string(), "what it was answered"),
            ("error", pa.string(), "why the tool call or the round failed"),
            ("num_items", pa.int32(), "items that the tool returned"),
            ("target_position", pa.int16(), "the target's 1-based position in that list; 0 where it is not on it"),
            ("num_reasks", pa.int32(), "replies that were not accepted"),
            *_SPENT,
            ("duration_s", pa.float64(), "seconds, without waiting for the run's own limits"),
        ),
        rows=_rounds,
    ),
    "calls": Table(
        meaning="one row for each tool call, without the finish",
        columns=(
            *_USER,
            _ROUND,
            ("tool", pa.string(), "`retrieve` or `rank`"),
            ("attribute", pa.string(), "that the tool was oriented to; null for the plain backbone"),
            ("k", pa.int32(), "items asked for; null where the surrogate named no number"),
            ("num_items", pa.int32(), "items that it returned"),
            ("is_repeat", pa.bool_(), "whether the same call was made before"),
            ("error", pa.string(), "why the call failed"),
            ("target_position", pa.int16(), "the target's 1-based position in the list; 0 where it is not on it"),
        ),
        rows=_calls,
    ),
    "candidates": Table(
        meaning="one row for each item of each list in memory",
        columns=(
            *_USER,
            ("mark", pa.string(), "the tool that brought it, as in `Retrieve[genre]`"),
            _ROUND,
            ("position", pa.int16(), "1-based position in the tool's list"),
            ("score", pa.float64(), "the tool's score"),
            *_ITEM,
        ),
        rows=_candidates,
    ),
    "lists": Table(
        meaning="one row for each slot of each user's final list",
        columns=(
            *_USER,
            ("list", pa.string(), "`given`, or `completed` from memory"),
            ("position", pa.int16(), "1-based position"),
            *_ITEM,
        ),
        rows=_lists,
    ),
    "messages": Table(
        meaning="one row for each chat message, the opening included",
        columns=(
            *_USER,
            ("number", pa.int32(), "the message's place in the conversation, from 1"),
            ("round", pa.int16(), "the round, from 1; 0 for the opening"),
            ("role", pa.string(), "`system`, `user`, `assistant` or `tool`"),
            ("content", pa.string(), "the text"),
            ("tool_calls", pa.string(), "native tool calls as JSON; null where there are none"),
            ("tool_call_id", pa.string(), "the call that a tool message answers"),
        ),
        rows=_messages,
    ),
}


def write_tables(source: Source, folder: Path, kind: TableFormat) -> dict[str, int]:
    """Writes every table, and `columns.json`, which says what they hold.

    Args:
        source: the run.
        folder: an empty folder.
        kind: `parquet`, or `csv` (UTF-8, with a heading; every text is quoted, so that a missing one differs from an empty one).

    Returns:
        The number of rows by table.
    """
    writers = {name: _Writer(folder / f"{name}.{kind}", table, kind) for name, table in TABLES.items()}
    try:
        for trace in source.traces():
            for name, table in TABLES.items():
                writers[name].add(table.rows(source, trace))
    finally:
        for writer in writers.values():
            writer.close()
    write_json(folder / "columns.json", _description(source, writers))
    return {name: writer.num_rows for name, writer in writers.items()}


def _description(source: Source, writers: Mapping[str, _Writer]) -> dict[str, Any]:
    return {
        "run": source.name,
        "status": source.run.status,
        "target_split": source.target_split,
        "has_targets": source.dataset is not None,
        "settings": source.settings,
        "tables": {
            name: {
                "meaning": table.meaning,
                "num_rows": writers[name].num_rows,
                "columns": {column: {"type": str(kind), "meaning": meaning} for column, kind, meaning in table.columns},
            }
            for name, table in TABLES.items()
        },
    }


class _Writer:
    """Appends rows to one file, a batch at a time."""

    def __init__(self, path: Path, table: Table, kind: TableFormat) -> None:
        self._schema = table.schema
        self._rows: list[Row] = []
        self.num_rows = 0
        if kind == "parquet":
            self._file: Any = pq.ParquetWriter(path, self._schema, compression="zstd")
        else:
            self._file = pc.CSVWriter(path, self._schema, write_options=pc.WriteOptions(quoting_style="needed"))

    def add(self, rows: Iterable[Row]) -> None:
        self._rows.extend(rows)
        if len(self._rows) >= BATCH_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._rows:
            self._file.write(pa.Table.from_pylist(self._rows, schema=self._schema))
            self.num_rows += len(self._rows)
            self._rows = []
