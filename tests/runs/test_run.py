"""A run folder as frames and traces: documented columns, runs that go on, folders that are no runs. No Ray."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolrec.errors import RunFolderError
from toolrec.records import Candidate, Observation, RankedItem, Round, ToolCall, Trace, Usage
from toolrec.runs.folder import RunFolder
from toolrec.runs.rows import trace_of, trace_rows
from toolrec.runs.run import Run, load_run
from toolrec.util.files import write_json

PRICE = {"model": "m", "input_usd": 10.0, "cached_input_usd": 5.0, "output_usd": 20.0, "checked": "2026-01-31", "source": "s"}
MANIFEST = {"schema_version": 1, "resume_key": "k", "settings": {}, "prices": {"checksum": "c", "price": PRICE}}
USAGE = Usage(num_calls=1, num_attempts=2, prompt_tokens=100, cached_tokens=40, completion_tokens=7)
COST_USD = (60 * 10 + 40 * 5 + 7 * 20) / 1e6


def a_round(number: int, call: ToolCall | None, seen: Observation | None = None, **counts: int) -> Round:
    return Round(
        number=number,
        thought=f"thought {number}",
        call=call,
        observation=seen,
        messages=({"role": "assistant", "content": "é \u2028 <x>"},),
        usage={"decide": USAGE},
        counts=counts,
        duration_s=0.25,
    )


def a_trace(user_index: int, user_id: str, *rounds: Round) -> Trace:
    retrieved = Observation(
        text="1. <a> A", items=(RankedItem(item_index=3, score=0.5), RankedItem(item_index=4, score=0.25)), mark="Retrieve[genre]"
    )
    rounds = rounds or (
        a_round(1, ToolCall(name="retrieve", attribute="genre", k=20, call_id="c0"), retrieved, memory_exact=1),
        a_round(2, ToolCall(name="finish", items=("3", "4"))),
    )
    return Trace(
        user_index=user_index,
        user_id=user_id,
        attempt=1,
        opening=({"role": "system", "content": "play"}, {"role": "user", "content": "history"}),
        rounds=rounds,
        final_items=(3, 0),
        completed_items=(3, 4),
        candidates=(Candidate(item_index=3, mark="Retrieve[genre]", round=1, position=1, score=0.5),),
        ended_by="finish",
        error=None,
        usage={"decide": Usage(num_calls=2, num_attempts=4, prompt_tokens=200, cached_tokens=80, completion_tokens=14)},
        counts={"memory_exact": 1},
        started_s=1.0,
        ended_s=2.0,
    )


FAILED = replace(
    a_trace(
        3,
        "u0003",
        a_round(1, None, Observation(text="", error="LLMRefusedError: no", failure_kind="refused", http_status=401)),
    ),
    ended_by="llm_failure",
    error="LLMRefusedError: no",
    failure_kind="refused",
    http_status=401,
    final_items=(),
    completed_items=(),
    candidates=(),
    counts={"llm_failure": 1},
)
TRACES = (a_trace(1, "u0001"), a_trace(17, "u0017"), FAILED)


def figures(ndcg: float, **difference: Any) -> dict[str, Any]:
    named = {f"difference_to_{other}": {"ndcg@10": value} for other, value in difference.items()}
    finished = {"num_users": 2, "ndcg@10": ndcg / 2}
    return {
        "label": "some name",
        "num_users": 3,
        "ndcg@10": ndcg,
        "intervals": {"ndcg@10": [0.1, 0.3]},
        "finished_users": finished,
        **named,
    }


SUMMARY = {
    "surrogate": figures(0.2, backbone={"mean": -0.05, "low": -0.1, "high": 0.0, "p_value": 0.04}),
    "backbone": figures(0.25),
    "schema_version": 1,
    "counts": {"users": 3},
}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run under way, in which three users have ended."""
    folder = RunFolder.create(tmp_path / "run", MANIFEST)
    pairs = [trace_rows(trace) for trace in TRACES]
    folder.commit([user for user, _ in pairs], [row for _, rows in pairs for row in rows])
    entry = {"user_index": 1, "attempt": 1, "round": 1, "purpose": "decide", "tool": "Retrieve[genre]"}
    folder.journal([{**entry, "num_calls": 1, "prompt_tokens": 100}, {**entry, "user_index": 9, "num_calls": 1}])
    return folder


@pytest.fixture
def run(folder: RunFolder) -> Run:
    """A complete run."""
    folder.close()
    write_json(folder.path / "summary.json", SUMMARY)
    return load_run(folder.path)


@pytest.mark.parametrize("name", ["summary", "users", "rounds", "spend"])
@pytest.mark.parametrize("is_empty", [False, True])
def test_a_frame_has_the_documented_columns_and_types(name: str, is_empty: bool, run: Run, tmp_path: Path):
    if is_empty:
        RunFolder.create(tmp_path / "empty", MANIFEST).close()
        run = load_run(tmp_path / "empty")
    documented = re.findall(r"^ +\| `(\w+)` \| (\w+) \| .+ \|$", getattr(Run, name).__doc__, flags=re.MULTILINE)
    frame = getattr(run, name)
    assert frame.empty == is_empty
    assert [(column, str(kind)) for column, kind in frame.dtypes.items()] == documented


def test_users_are_in_the_order_of_their_index_with_what_they_spent(run: Run):
    users = run.users.set_index("user_id")
    assert users.index.tolist() == ["u0001", "u0003", "u0017"]
    assert users["is_finished"].tolist() == [True, False, True]
    assert users.loc["u0001", "final_items"] == [3, 0] and users.loc["u0001", "completed_items"] == [3, 4]
    assert users.loc["u0001", ["num_candidates", "num_llm_calls"]].tolist() == [1, 2]
    assert users.loc["u0001", ["prompt_tokens", "completion_tokens"]].tolist() == [200, 14]
    assert users.loc["u0001", "cost_usd"] == pytest.approx(2 * COST_USD)
    assert users.loc["u0003", ["failure_kind", "http_status", "error"]].tolist() == ["refused", 401, "LLMRefusedError: no"]
    assert users.loc["u0017", ["failure_kind", "http_status", "error"]].isna().all()
    assert users.loc["u0003", "counts"] == {"llm_failure": 1}


def test_rounds_hold_calls_and_what_came_of_them(run: Run):
    rounds = run.rounds.set_index(["user_id", "round"])
    assert rounds.index.tolist() == [("u0001", 1), ("u0001", 2), ("u0003", 1), ("u0017", 1), ("u0017", 2)]
    assert rounds.loc[("u0001", 1), ["action", "attribute", "k", "observation"]].tolist() == ["retrieve", "genre", 20, "1. <a> A"]
    assert rounds.loc[("u0001", 1), "items"] == [3, 4] and rounds.loc[("u0001", 1), "scores"] == [0.5, 0.25]
    assert rounds.loc[("u0017", 2), "action"] == "finish" and pd.isna(rounds.loc[("u0017", 2), "k"])
    assert rounds.loc[("u0003", 1), ["failure_kind", "http_status"]].tolist() == ["refused", 401]
    assert pd.isna(rounds.loc[("u0003", 1), "action"])
    assert rounds.loc[("u0001", 1), "cost_usd"] == pytest.approx(COST_USD)


def test_the_summary_has_a_row_for_each_recommender_and_metric(run: Run):
    assert run.summary[["recommender", "metric"]].values.tolist() == [["surrogate", "ndcg@10"], ["backbone", "ndcg@10"]]
    surrogate = run.summary.iloc[0]
    assert surrogate[["mean", "low", "high", "mean_finished"]].tolist() == [0.2, 0.1, 0.3, 0.1]
    assert surrogate[["num_users", "num_finished"]].tolist() == [3, 2]
    assert surrogate[["difference_to_backbone", "p_value_to_backbone"]].tolist() == [-0.05, 0.04]
    assert run.summary.iloc[1][["difference_to_backbone", "difference_to_fusion"]].isna().all()


def test_spend_of_users_in_flight_is_void_so_far(run: Run):
    assert run.spend[["user_index", "is_void"]].values.tolist() == [[1, False], [9, True]]


@pytest.mark.parametrize("trace", TRACES)
def test_a_trace_comes_back_as_it_was(run: Run, trace: Trace):
    assert run.trace(trace.user_id) == trace
    assert run.trace(trace.user_index) == trace
    assert run.trace(str(trace.user_index)) == trace


texts = st.text(max_size=20).filter(lambda text: text.isprintable())
calls = st.builds(
    ToolCall,
    name=st.sampled_from(["retrieve", "rank", "finish"]),
    attribute=st.none() | texts,
    k=st.none() | st.integers(-5, 99),
    items=st.lists(texts, max_size=3).map(tuple),
    call_id=texts,
)


@given(call=calls, thought=texts, content=texts)
def test_whatever_a_surrogate_writes_comes_back(call: ToolCall, thought: str, content: str):
    done = replace(a_round(1, call), thought=thought, messages=({"role": "assistant", "content": content},))
    trace = a_trace(1, "u", done)
    assert trace_of(*trace_rows(trace)) == trace


def test_an_id_of_digits_is_taken_as_the_id(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "run", MANIFEST)
    pairs = [trace_rows(trace) for trace in (a_trace(1, "2"), a_trace(2, "1"))]
    folder.commit([user for user, _ in pairs], [row for _, rows in pairs for row in rows])
    folder.close()
    run = load_run(folder.path)
    assert run.trace("2").user_index == 1
    assert run.trace(2).user_index == 2


@pytest.mark.parametrize("user", ["u0071", "U17", 4, "4", "-1", "١٧", "9" * 30, "", "\x1b[2J"])
def test_an_unknown_user_is_refused_with_ids_that_are_near(run: Run, user: str | int):
    with pytest.raises(RunFolderError, match=r"no such user .*its 3 users: u00"):
        run.trace(user)


def test_the_nearest_id_comes_first(run: Run):
    with pytest.raises(RunFolderError, match="its 3 users: u0017, "):
        run.trace("u017")


def test_a_run_that_goes_on_shows_who_has_ended_and_the_next_look_shows_more(folder: RunFolder):
    run = load_run(folder.path)
    assert run.status == "running"
    assert len(run.users) == 3 and run.summary.empty
    user, rounds = trace_rows(a_trace(20, "u0020"))
    folder.commit([user], rounds)
    with pytest.raises(RunFolderError, match="is in this run, or has ended"):
        run.trace("u0020")
    again = load_run(folder.path)
    assert len(again.users) == 4 and again.trace("u0020").user_index == 20
    folder.close()
    assert again.status == "interrupted"
    write_json(folder.path / "summary.json", SUMMARY)
    assert again.status == "complete"


def test_rounds_whose_users_are_not_committed_are_not_shown(folder: RunFolder):
    folder.close()
    (folder.path / "users" / "part-000001.parquet").unlink()  # as a kill between the two files leaves it
    run = load_run(folder.path)
    assert run.users.empty and run.rounds.empty
    with pytest.raises(RunFolderError, match="no user has ended yet"):
        run.trace("u0001")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, demo_folder: Path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path, reason in [
        (tmp_path / "nothing", "no run folder here"),
        (tmp_path / "file", "no run folder here"),
        (tmp_path / "folder", "it has no manifest.json"),
        (demo_folder, "its manifest.json is of something else"),
    ]:
        with pytest.raises(RunFolderError, match=reason) as caught:
            load_run(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", "null"])
def test_a_damaged_manifest_is_refused(run: Run, content: str):
    (run.path / "manifest.json").write_text(content)
    with pytest.raises(RunFolderError):
        load_run(run.path)


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"surrogate": {"intervals": {"ndcg@10": [0, 1]}}})])
def test_damaged_figures_are_refused(run: Run, content: str):
    (run.path / "summary.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"summary\.json"):
        _ = run.summary


def test_a_damaged_block_is_refused(run: Run):
    block = run.path / "users" / "part-000001.parquet"
    block.write_bytes(b"PAR1")
    with pytest.raises(RunFolderError, match="damaged"):
        _ = run.users
    block.unlink()  # the session's search for keys reads every Parquet file that is left


def test_a_run_is_read_without_ray_and_without_torch(run: Run):
    code = (
        "import sys\n"
        "from toolrec.runs.run import load_run\n"
        f"run = load_run({str(run.path)!r})\n"
        "assert len(run.users) == 3 and len(run.rounds) == 5 and len(run.summary) == 2 and run.trace('u0017').rounds\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"ray", "torch", "openai", "scipy", "matplotlib"}
