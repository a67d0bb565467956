"""A tiny data set and a hand-made run whose figures can be worked out on paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from toolrec.data.dataset import Dataset
from toolrec.data.pool import AttributeSpec, DomainWords, Pool

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
    return Dataset(
        path=Path("tiny"),
        manifest={"name": "tiny", "checksum": "c0ffee", "timestamp_kind": "none", "source": {"kind": kind}},
        pool=tiny_pool(),
        user_ids=["", *(f"u{n}" for n in range(1, num_users + 1))],
        offsets=np.array([0, *range(0, 5 * num_users + 1, 5)]),
        items=np.array([item for target in targets for item in (30, 29, 28, 27, target)], dtype=np.int32),
        ratings=None,
    )


def usage(purpose: str = "decide", calls: int = 1) -> dict:
    return {
        "purpose": purpose,
        "num_calls": calls,
        "num_attempts": calls,
        "prompt_tokens": 100 * calls,
        "cached_tokens": 10 * calls,
        "completion_tokens": 7 * calls,
    }


def candidate(item: int, mark: str = "Retrieve[none]", round: int = 1, position: int = 1) -> dict:
    return {"item_index": item, "mark": mark, "round": round, "position": position, "score": 1.0}


def user_row(user: int, final: list[int], **given) -> dict:
    row = {
        "user_index": user,
        "user_id": f"u{user}",
        "attempt": 1,
        "ended_by": "finish",
        "error": None,
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
            user_row(4, [4], candidates=[candidate(4)], ended_by="llm_failure", error="the endpoint\nis down"),
        ]
    )


@pytest.fixture
def protocol() -> dict:
    return {"data_set": "tiny", "split": "test", "model": "toolrec-rules-1", "list_length": 10, "mask_seen": True}
