"""A run folder of four users in the real format, with what nobody should trust in it, and its tiny data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from toolrec.data.dataset import Dataset
from toolrec.data.pool import AttributeSpec, DomainWords, Pool
from toolrec.evaluation import FinishedRun, evaluate_run
from toolrec.evaluation.behaviour import ROUND_COLUMNS
from toolrec.recommenders import Popularity
from toolrec.records import Candidate, Observation, RankedItem, Round, ToolCall, Trace, Usage
from toolrec.report.source import RunSource
from toolrec.runs.folder import SCHEMA_VERSION, RunFolder, read_rounds, read_users
from toolrec.runs.rows import trace_rows
from toolrec.runs.run import load_run

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
HOSTILE_TITLES = {1: f"{SCRIPT}</textarea></script>", 2: "‮evil تفاحة ‏", 3: "👩‍👩‍👧 family", 5: "T" * 1_000_000}
NUM_ITEMS = 30


def make_dataset() -> Dataset:
    """Everyone's history is items 30, 29, 28, 27 with ratings; user u's test target is item u."""
    titles = ["", *(HOSTILE_TITLES.get(n, f"Title {n}") for n in range(1, NUM_ITEMS + 1))]
    return Dataset(
        path=Path("nowhere"),
        manifest={"name": "tiny", "checksum": "c0ffee", "timestamp_kind": "none", "source": {"layout": "own"}},
        pool=Pool(
            item_ids=["", *(f"i{n}" for n in range(1, NUM_ITEMS + 1))],
            titles=titles,
            attributes=[AttributeSpec(name="genre", kind="category")],
            values={"genre": ["even" if n % 2 == 0 else "odd" for n in range(1, NUM_ITEMS + 1)]},
            domain=DomainWords(),
        ),
        user_ids=["", *(f"u{n}" for n in range(1, 5))],
        offsets=np.array([0, *range(0, 21, 5)]),
        items=np.array([item for target in range(1, 5) for item in (30, 29, 28, 27, target)], dtype=np.int32),
        ratings=np.array([5, 4, 3, 2, 1] * 4, dtype=np.float32),
    )


def make_round(number: int, call: ToolCall, items: tuple[int, ...] = (), *, thought: str = "", **given: object) -> Round:
    """A round that spent one call of 100 and 10 tokens."""
    listed = tuple(RankedItem(item_index=item, score=1.0) for item in items)
    return Round(
        number=number,
        thought=thought,
        call=call,
        observation=Observation(text="a list", items=listed, mark=call.mark) if items else None,
        messages=given.pop("messages", ()),  # type: ignore[arg-type]
        usage={"decide": Usage(num_calls=1, prompt_tokens=100, completion_tokens=10)},
        counts=given.pop("counts", {}),  # type: ignore[arg-type]
        duration_s=1.0,
    )


def make_trace(user: int, rounds: list[Round], final: tuple[int, ...], **given: object) -> Trace:
    """A user whose memory holds what its rounds returned."""
    candidates = tuple(
        Candidate(item_index=item.item_index, mark=done.call.mark, round=done.number, position=place, score=1.0)
        for done in rounds
        if done.observation and done.call
        for place, item in enumerate(done.observation.items, start=1)
    )
    values = {
        "user_index": user,
        "user_id": f"u{user}",
        "attempt": 1,
        "opening": ({"role": "system", "content": f"You are a user. {SCRIPT}"},),
        "rounds": tuple(rounds),
        "final_items": final,
        "completed_items": final,
        "candidates": candidates,
        "ended_by": "finish",
        "error": None,
        "usage": {"decide": Usage(num_calls=len(rounds), prompt_tokens=100 * len(rounds), completion_tokens=10 * len(rounds))},
        "counts": {},
        "started_s": 100.0 + user,
        "ended_s": 110.0 + user,
    }
    return Trace(**{**values, **given})  # type: ignore[arg-type]


RETRIEVE, GENRE = ToolCall(name="retrieve", k=20), ToolCall(name="retrieve", attribute="genre", k=20)
RANK, FINISH = ToolCall(name="rank", attribute=SCRIPT, k=20), ToolCall(name="finish", items=("i9",))


def traces() -> list[Trace]:
    """A hit, a target that was left out at the end, one that no tool brought, and a failure that had it."""
    refused = ({"role": "user", "content": f"Not accepted: {SCRIPT}"},)
    return [
        make_trace(
            1,
            [
                make_round(1, RETRIEVE, (9, 1, 5), thought=f"Fruit, then. {SCRIPT}"),
                make_round(2, RANK, (1, 9), thought="x" * 1_000_000, counts={"reask": 1}, messages=refused),
                make_round(3, FINISH),
            ],
            (9, 1),
            counts={"reask": 1},
        ),
        make_trace(2, [make_round(1, GENRE, (7, 2, 8), thought="Pears"), make_round(2, FINISH)], (7, 0, 8)),
        make_trace(3, [make_round(1, RETRIEVE, (11, 12)), make_round(2, FINISH)], (11, 12)),
        make_trace(
            4,
            [make_round(1, RETRIEVE, (4, 11))],
            (),
            ended_by="llm_failure",
            failure_kind="unavailable",
            error=f"the endpoint is down {SCRIPT}",
        ),
    ]


def missing_traces() -> list[Trace]:
    """Three misses: a target that was too deep in every list, one that a ranking moved out, and one that no tool brought."""
    eleven = tuple(range(10, 21))
    drop = ToolCall(name="rank", attribute="genre", k=20)
    return [
        make_trace(1, [make_round(1, RETRIEVE, (*eleven, 1)), make_round(2, GENRE, (9, *eleven, 1)), make_round(3, FINISH)], ()),
        make_trace(2, [make_round(1, RETRIEVE, (2, 9)), make_round(2, drop, (9, 8)), make_round(3, FINISH)], (9, 8)),
        make_trace(3, [make_round(1, RETRIEVE, (11, 12)), make_round(2, FINISH)], (11, 12)),
    ]


def make_run(folder: Path, traces: list[Trace], *, is_complete: bool = True, **settings: object) -> Path:
    """Writes a run folder; a complete one has the figures of `traces` beside popularity in the backbone's place."""
    dataset = make_dataset()
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "resume_key": "",
        "settings": {
            "dataset_checksum": "c0ffee",
            "split": "test",
            "users": None,
            "seed": 3,
            "llm.model": "m",
            "surrogate.rounds": 5,
            **settings,
        },
        "created": "2026-01-31T00:00:00Z",
        "command": ["toolrec", "evaluate"],
        "dataset": {"path": "nowhere", "manifest": dataset.manifest},
        "versions": {"toolrec": "1.2.3", "commit": None},
    }
    run = RunFolder.create(folder, manifest)
    for trace in traces:
        user, rounds = trace_rows(trace)
        run.commit([user], rounds)
    run.close()
    if is_complete:
        counts = [0.0, *range(NUM_ITEMS, 0, -1)]
        evaluate_run(
            FinishedRun(
                users=read_users(folder),
                rounds=read_rounds(folder, columns=ROUND_COLUMNS),
                protocol={"split": "test", "model": "m", "seed": 3, "rounds": 5},
            ),
            dataset=dataset,
            recommenders={name: Popularity(counts, name=name) for name in ("backbone", "genre")},
            folder=folder,
        )
    return folder


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return make_dataset()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The complete run of `traces`; tests only read it."""
    return make_run(tmp_path_factory.mktemp("runs") / "first", traces())


@pytest.fixture
def source(run: Path, dataset: Dataset) -> RunSource:
    return RunSource(load_run(run), dataset=dataset)


@pytest.fixture(scope="session")
def written() -> Callable[..., Path]:
    """`make_run`, for tests with a run of their own."""
    return make_run


@pytest.fixture(scope="session")
def hand_traces() -> Callable[[], list[Trace]]:
    """The four traces anew."""
    return traces


@pytest.fixture(scope="session")
def misses() -> list[Trace]:
    """Three users that each missed for another cause."""
    return missing_traces()


@pytest.fixture(scope="session")
def script() -> str:
    """The text that would take over a page which puts texts in as HTML."""
    return SCRIPT
