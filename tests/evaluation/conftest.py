"""A tiny data set and a hand-made run whose figures can be worked out on paper."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from toolrec.data.dataset import Dataset
from toolrec.data.pool import AttributeSpec, DomainWords, Pool
from toolrec.records import Trace, Usage
from toolrec.runs.rows import trace_of

TITLES = ["", "Apple & <Pear>", "<script>alert(1)</script>", "Cherry [bold]red[/bold]"] + [f"Title {n}" for n in range(4, 31)]


def tiny_pool() -> Pool:
    return Pool(
        item_ids=["", *(f"i{n}" for n in range(1, 31))],
        titles=TITLES,
        attributes=[AttributeSpec(name="genre", kind="category")],
        values={"genre": ["even" if n % 2 == 0 else "odd" for n in range(1, 31)]},
        domain=DomainWords(),
    )


def tiny_dataset(num_users: int = 4, *, kind: str = "demo", targets: list[int] | None = None) -> Dataset:
    """Everyone's history is items 30, 29, 28, 27 (the last is the validation target); user u's test target is item u."""
    targets = targets or list(range(1, num_users + 1))
    num_users = len(targets)
    return Dataset(
        path=Path("tiny"),
        manifest={"name": "tiny", "checksum": "c0ffee", "timestamp_kind": "none", "source": {"layout": kind}},
        pool=tiny_pool(),
        user_ids=["", *(f"u{n}" for n in range(1, num_users + 1))],
        offsets=np.array([0, *range(0, 5 * num_users + 1, 5)]),
        items=np.array([item for target in targets for item in (30, 29, 28, 27, target)], dtype=np.int32),
        ratings=None,
    )


def usage(purpose: str = "decide", calls: int = 1) -> dict:
    used = Usage(
        num_calls=calls, num_attempts=calls, prompt_tokens=100 * calls, cached_tokens=10 * calls, completion_tokens=7 * calls
    )
    return {"purpose": purpose, **asdict(used)}


def candidate(item: int, mark: str = "Retrieve[none]", round: int = 1, position: int = 1) -> dict:
    return {"item_index": item, "mark": mark, "round": round, "position": position, "score": 1.0}


def user_row(user: int, final: list[int], **given) -> dict:
    row = {
        "user_index": user,
        "user_id": f"u{user}",
        "attempt": 1,
        "strategy": None,
        "ended_by": "finish",
        "error": None,
        "failure_kind": None,
        "http_status": None,
        "final_items": final,
        "completed_items": final,
        "candidates": [],
        "num_rounds": 3,
        "num_tool_calls": 2,
        "usage": [usage(calls=3)],
        "counts": [],
        "started_s": 100.0 + user,
        "ended_s": 110.0 + user,
    }
    return {**row, **given}


def users_frame(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows).astype({"user_index": "int32", "attempt": "int16"})


def round_row(user: int, number: int, *, name: str = "", attribute: str | None = None, **given) -> dict:
    call = {"name": name, "attribute": attribute, "k": 20, "items": ["i1"] * 10 if name == "finish" else [], "call_id": ""}
    row = {
        "user_index": user,
        "attempt": 1,
        "round": number,
        "thought": "",
        "call": json.dumps(call) if name else None,
        "observation_text": "",
        "observation_error": None,
        "failure_kind": None,
        "http_status": None,
        "mark": "",
        "items": [],
        "scores": [0.5] * len(given.get("items", ())),
        "messages": "[]",
        "usage": [],
        "counts": [],
        "duration_s": 0.1,
    }
    return {**row, **given}


def rounds_frame(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows).astype({"user_index": "int32", "attempt": "int16", "round": "int16"})


def trace_reader(users: pd.DataFrame, rounds: pd.DataFrame) -> Callable[[int], Trace]:
    """Gives the traces of users whose rows and rounds were written by hand."""

    def read(user_index: int) -> Trace:
        [user] = plain_rows(users[users["user_index"] == user_index])
        of_user = plain_rows(rounds[rounds["user_index"] == user_index])
        return trace_of(user, [row for row in of_user if row["attempt"] == user["attempt"]])

    return read


def plain_rows(frame: pd.DataFrame) -> list[dict]:
    """The frame's rows, with None in place of the NaN that pandas puts where a text is missing."""

    def plain(value: object) -> object:
        return None if isinstance(value, float) and math.isnan(value) else value

    return [{name: plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


@pytest.fixture(scope="session")
def hand() -> SimpleNamespace:
    """The makers above, for tests that write their own run by hand."""
    return SimpleNamespace(
        candidate=candidate,
        dataset=tiny_dataset,
        plain_rows=plain_rows,
        pool=tiny_pool,
        round_row=round_row,
        rounds_frame=rounds_frame,
        trace_reader=trace_reader,
        usage=usage,
        user_row=user_row,
        users_frame=users_frame,
    )


@pytest.fixture
def dataset() -> Dataset:
    return tiny_dataset()


@pytest.fixture
def users() -> pd.DataFrame:
    """Four users: a hit at 1, a hit at 3 behind an empty slot, a full list that misses, a failure whose list held the target."""
    ten = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
    genre = [candidate(item, "Retrieve[genre]", 1, place) for place, item in enumerate(ten, start=1)]
    return users_frame(
        [
            user_row(1, [1, 5, 6], candidates=[candidate(1), candidate(1, "Retrieve[genre]", 2, 4), candidate(9)]),
            user_row(2, [7, 0, 2], completed_items=[7, 2, 8], counts=[{"kind": "reask", "count": 2}]),
            user_row(3, ten, candidates=[*genre, candidate(3, "Rank[genre]", 2, 1)]),
            user_row(
                4,
                [4],
                candidates=[candidate(4)],
                ended_by="llm_failure",
                failure_kind="unavailable",
                error="the endpoint\nis down",
            ),
        ]
    )


@pytest.fixture
def protocol() -> dict:
    return {"data_set": "tiny", "split": "test", "model": "toolrec-rules-1", "list_length": 10, "mask_seen": True}


@pytest.fixture
def rounds() -> pd.DataFrame:
    """Three rounds of user 1, an error of user 2, an earlier attempt of user 3 that does not count."""
    opening = json.dumps(
        [{"role": "system", "content": "You are a user.\n\x1b[31mred"}, {"role": "user", "content": "History\n" * 50}]
    )
    refused = json.dumps(
        [{"role": "user", "content": "Not accepted: <i99> is not in the pool"}, {"role": "assistant", "content": None}]
    )
    return rounds_frame(
        [
            round_row(1, 0, messages=opening),
            round_row(1, 1, name="retrieve", thought="Fruit, then.", items=[1, 9, 2], mark="Retrieve[none]"),
            round_row(
                1, 2, name="rank", attribute="genre", items=list(range(1, 13)), messages=refused,
                counts=[{"kind": "reask", "count": 1}],
            ),
            round_row(1, 3, name="finish"),
            round_row(2, 1, name="retrieve", attribute="<b>genre</b>", observation_error="unknown attribute"),
            round_row(3, 1, name="retrieve", attribute="genre", attempt=2),
            round_row(4, 0, messages=opening),
        ]
    )  # fmt: skip


@pytest.fixture
def baseline_lists() -> dict[str, np.ndarray]:
    """Lists of twenty for the four users: targets at 1, 2, 15, absent / all at 1 / none / all at 6."""

    def at(positions: list[int]) -> np.ndarray:
        list_BK = np.full((len(positions), 20), 29)
        for row, position in enumerate(positions):
            if position:
                list_BK[row, position - 1] = row + 1
        return list_BK

    return {
        "popularity": at([0, 0, 0, 0]),
        "fusion": at([6, 6, 6, 6]),
        "attribute:genre": at([1, 1, 1, 1]),
        "backbone": at([1, 2, 15, 0]),
    }
