"""The run folder: whole or not there, committed by its users, refused where it belongs to something else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from toolrec.errors import FailureKind, RunFolderError, StorageError
from toolrec.records import Candidate, EndedBy, Observation, RankedItem, Round, ToolCall, Trace, Usage
from toolrec.runs.failures import ending_of
from toolrec.runs.folder import (
    RunFolder,
    read_attempts,
    read_llm_counts,
    read_manifest,
    read_rounds,
    read_spend,
    read_users,
)
from toolrec.runs.ledger import ledger_of, void_spend
from toolrec.runs.rows import trace_rows


def a_manifest(**settings: Any) -> dict[str, Any]:
    return {"schema_version": 1, "resume_key": repr(sorted(settings.items())), "settings": settings}


def a_trace(user_index: int, attempt: int = 1) -> Trace:
    usage = {"decide": Usage(num_calls=1, num_attempts=2, prompt_tokens=100, cached_tokens=5, completion_tokens=7)}
    observation = Observation(text="1. <a> A", items=(RankedItem(item_index=3, score=0.5),), mark="Retrieve[genre]")
    done = Round(
        number=1,
        thought="look",
        call=ToolCall(name="retrieve", attribute="genre", k=20, call_id="c0"),
        observation=observation,
        messages=({"role": "assistant", "content": "é \u2028 <x>"},),
        usage=usage,
        counts={"memory_exact": 1},
        duration_s=0.25,
    )
    return Trace(
        user_index=user_index,
        user_id=f"u{user_index}",
        attempt=attempt,
        opening=({"role": "system", "content": "play"},),
        rounds=(done,),
        final_items=(3, 0),
        completed_items=(3, 4),
        candidates=(Candidate(item_index=3, mark="Retrieve[genre]", round=1, position=1, score=0.5),),
        ended_by="finish",
        error=None,
        usage=usage,
        counts={"memory_exact": 1},
        started_s=1.0,
        ended_s=2.0,
    )


def commit(folder: RunFolder, *traces: Trace) -> None:
    pairs = [trace_rows(trace) for trace in traces]
    folder.commit([user for user, _ in pairs], [row for _, rows in pairs for row in rows])


def failed(trace: Trace, ended_by: EndedBy, kind: FailureKind, status: int | None = None, **counts: int) -> Trace:
    return replace(trace, ended_by=ended_by, error="no", failure_kind=kind, http_status=status, counts=counts)


def test_why_a_user_failed_is_read_back(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "run", a_manifest())
    commit(folder, failed(a_trace(1), "llm_failure", "refused", 401), failed(a_trace(2), "budget", "time_budget"), a_trace(3))
    folder.close()
    users = read_users(tmp_path / "run").astype(object)
    assert users["failure_kind"].where(users["failure_kind"].notna(), None).tolist() == ["refused", "time_budget", None]
    assert users["http_status"].where(users["http_status"].notna(), None).tolist() == [401, None, None]


def test_a_folder_of_before_failures_had_a_kind_is_read_and_resumed(tmp_path: Path):
    run = tmp_path / "run"
    folder = RunFolder.create(run, a_manifest())
    lost = failed(a_trace(2), "cancelled", "tool_lost", tool_lost=1)
    commit(
        folder,
        a_trace(1),
        lost,
        failed(a_trace(3), "llm_failure", "refused", 401),
        failed(a_trace(4), "invalid_reply", "invalid_reply"),
    )
    folder.close()
    for kind in ("users", "rounds"):
        [part] = (run / kind).iterdir()
        pq.write_table(pq.read_table(part).drop_columns(["failure_kind", "http_status"]), part)
    folder = RunFolder.resume(run, a_manifest())
    commit(folder, failed(a_trace(5), "llm_failure", "unavailable", 503))
    folder.close()
    users = read_users(run).astype(object)
    kinds = users["failure_kind"].where(users["failure_kind"].notna(), None).tolist()
    assert kinds == [None, "tool_lost", None, "invalid_reply", "unavailable"]
    assert [ending_of(*pair) for pair in zip(users["ended_by"], kinds, strict=True)][:2] == ["finish", "tool_lost"]
    assert users["http_status"].tolist()[-1] == 503
    assert read_rounds(run, user_index=1)["failure_kind"].isna().all()
    assert read_rounds(run, columns=["user_index", "attempt", "round"])["user_index"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_what_is_committed_is_read_back(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "run", a_manifest(seed=1))
    commit(folder, a_trace(2), a_trace(1))
    commit(folder, a_trace(5))
    folder.close()
    users = read_users(tmp_path / "run")
    assert users["user_index"].tolist() == [1, 2, 5]
    assert users["final_items"].map(list).tolist() == [[3, 0]] * 3
    assert users.loc[0, "usage"][0]["prompt_tokens"] == 100
    rounds = read_rounds(tmp_path / "run", user_index=5)
    assert rounds["round"].tolist() == [0, 1]
    assert rounds.loc[1, "mark"] == "Retrieve[genre]"
    assert "\\u2028" not in rounds.loc[1, "messages"]


def test_an_existing_run_is_refused_without_resume(tmp_path: Path):
    RunFolder.create(tmp_path / "run", a_manifest(seed=1)).close()
    with pytest.raises(RunFolderError, match="there already"):
        RunFolder.create(tmp_path / "run", a_manifest(seed=1))


def test_resuming_another_configuration_names_the_difference(tmp_path: Path):
    RunFolder.create(tmp_path / "run", a_manifest(seed=1)).close()
    with pytest.raises(RunFolderError, match="seed was 1, now 2"):
        RunFolder.resume(tmp_path / "run", a_manifest(seed=2))


def test_two_drivers_cannot_write_to_one_folder(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "run", a_manifest(seed=1))
    with pytest.raises(RunFolderError, match="another process"):
        RunFolder.resume(tmp_path / "run", a_manifest(seed=1))
    folder.close()
    RunFolder.resume(tmp_path / "run", a_manifest(seed=1)).close()


def test_rounds_without_their_user_are_dropped_on_resume(tmp_path: Path):
    run = tmp_path / "run"
    folder = RunFolder.create(run, a_manifest(seed=1))
    commit(folder, a_trace(1))
    commit(folder, a_trace(2))
    folder.close()
    (run / "users" / "part-000002.parquet").unlink()  # as if the driver was killed between the two files
    folder = RunFolder.resume(run, a_manifest(seed=1))
    assert read_rounds(run)["user_index"].unique().tolist() == [1]
    commit(folder, a_trace(2, attempt=2))
    folder.close()
    assert read_users(run)["attempt"].tolist() == [1, 2]


def test_a_damaged_file_is_an_error_not_a_trace(tmp_path: Path):
    run = tmp_path / "run"
    folder = RunFolder.create(run, a_manifest(seed=1))
    commit(folder, a_trace(1))
    folder.close()
    (run / "users" / "part-000001.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(RunFolderError, match="damaged"):
        read_users(run)
    (run / "manifest.json").write_text("{")
    with pytest.raises(RunFolderError, match="not a JSON file"):
        read_manifest(run)


def test_a_cut_last_line_of_the_spend_journal_is_left_out(tmp_path: Path):
    run = tmp_path / "run"
    folder = RunFolder.create(run, a_manifest(seed=1))
    folder.journal([entry(1, 1, 1, 10), entry(1, 1, 2, 20)])
    folder.journal([entry(1, 1, 1, 10)])  # a restarted memory tells once more
    folder.close()
    with (run / "spend.jsonl").open("a") as handle:
        handle.write('{"user_index": 2, "att')
    assert read_spend(run) == [entry(1, 1, 1, 10), entry(1, 1, 2, 20)]


def entry(user_index: int, attempt: int, number: int, prompt_tokens: int) -> dict[str, Any]:
    used = {"num_calls": 1, "num_attempts": 1, "prompt_tokens": prompt_tokens, "cached_tokens": 0, "completion_tokens": 0}
    return {"user_index": user_index, "attempt": attempt, "round": number, "purpose": "decide", **used}


def test_the_last_attempt_of_a_user_is_found_wherever_it_was_written(tmp_path: Path):
    run = tmp_path / "run"
    folder = RunFolder.create(run, a_manifest(seed=1))
    folder.journal([entry(1, 3, 1, 10), entry(2, 1, 1, 10)])
    folder.rounds_in_flight.write_bytes(b'[2,1,{"number":1}]\n[2,2,null]\n[4,1,{"number":1}]\n[1,0,null]\n[5,')
    assert read_attempts(run) == {1: 3, 2: 2, 4: 1}


def test_void_spend_is_what_no_committed_trace_holds():
    users = pd.DataFrame({"user_index": [1, 2], "num_rounds": [2, 1]})
    journal = [
        entry(1, 1, 1, 10),
        entry(1, 2, 2, 20),  # continued under a new attempt: both rounds are held
        entry(2, 1, 1, 100),  # done again under attempt 2: void
        entry(2, 2, 1, 100),
        entry(3, 1, 1, 1000),  # never committed: void
    ]
    assert void_spend(ledger_of(journal, users))["decide"].prompt_tokens == 100 + 1000


def test_a_torn_line_does_not_swallow_the_next_entry(tmp_path: Path):
    run = tmp_path / "run"
    folder = RunFolder.create(run, a_manifest(seed=1))
    folder.journal([entry(1, 1, 1, 10)])
    folder.close()
    with (run / "spend.jsonl").open("a") as handle:
        handle.write('{"user_index": 2, "att')
    folder = RunFolder.resume(run, a_manifest(seed=1))
    folder.journal([entry(3, 1, 1, 10)])
    folder.close()
    assert [known["user_index"] for known in read_spend(run)] == [1, 3]


def test_a_folder_in_which_nothing_happened_can_be_discarded_and_made_again(tmp_path: Path):
    run = tmp_path / "run"
    folder = RunFolder.create(run, a_manifest(seed=1))
    folder.discard_if_untouched()
    folder.close()
    assert not run.exists()
    folder = RunFolder.create(run, a_manifest(seed=1))
    commit(folder, a_trace(1))
    folder.discard_if_untouched()
    folder.close()
    assert read_users(run)["user_index"].tolist() == [1]


@pytest.mark.parametrize("is_back", [False, True])
def test_a_folder_that_was_removed_under_way_is_not_made_anew(tmp_path: Path, is_back: bool):
    run = tmp_path / "run"
    folder = RunFolder.create(run, a_manifest(seed=1))
    folder.check_in_place()
    shutil.rmtree(run)
    if is_back:  # another run's
        RunFolder.create(run, a_manifest(seed=2)).close()
    for write in (
        folder.check_in_place,
        lambda: commit(folder, a_trace(1)),
        lambda: folder.journal([{"user_index": 1}]),
        lambda: folder.note_llm_counts({"retry": 1}),
    ):
        with pytest.raises(StorageError, match="the run folder was removed, moved or replaced"):
            write()
    assert [path.name for path in tmp_path.rglob("*.parquet")] == []
    assert run.exists() == is_back
    folder.close()


def test_counts_of_several_sessions_add_up(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "run", a_manifest(seed=1))
    folder.note_llm_counts({"retry": 1})
    folder.note_llm_counts({"retry": 2})
    folder.close()
    folder = RunFolder.resume(tmp_path / "run", a_manifest(seed=1))
    folder.note_llm_counts({"retry": 1, "parameter_refused:stop": 1})
    folder.close()
    assert read_llm_counts(tmp_path / "run") == {"retry": 3, "parameter_refused:stop": 1}


def test_a_run_from_before_a_setting_was_declared_had_it_at_its_default(tmp_path: Path):
    RunFolder.create(tmp_path / "run", a_manifest(seed=1)).close()
    defaults = {"seed": 0, "patience": 3}
    RunFolder.resume(tmp_path / "run", a_manifest(seed=1, patience=3), defaults=defaults).close()
    with pytest.raises(RunFolderError, match="another configuration: patience was 3, now 4"):
        RunFolder.resume(tmp_path / "run", a_manifest(seed=1, patience=4), defaults=defaults)
    with pytest.raises(RunFolderError, match="seed was 1, now 0"):
        RunFolder.resume(tmp_path / "run", a_manifest(seed=0, patience=3), defaults=defaults)
