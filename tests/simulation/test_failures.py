"""The failure log: one whole JSON line a failure, with the user's id, without a key, of bounded length. No Ray."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path

import pytest

from toolrec.errors import StorageError
from toolrec.runs.failures import FAILURES, MAX_REASON, Failure, FailureLog, ending_of, read_failures

KEY = "marker-of-a-key-4711"


def test_a_failure_is_one_line_in_the_folder_and_the_same_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    failures = FailureLog(tmp_path, secrets=[KEY])
    written = failures.write(
        Failure(
            kind="llm_failure",
            reason="LLMUnavailableError: no reply",
            failure_kind="unavailable",
            http_status=503,
            user_id="u 7",
            user_index=3,
            attempt=2,
            round=4,
            is_end=True,
        )
    )
    [line] = (tmp_path / FAILURES).read_text().splitlines()
    entry = json.loads(line)
    assert datetime.fromisoformat(entry.pop("time")).utcoffset() is not None
    assert entry == {
        "kind": "llm_failure",
        "reason": "LLMUnavailableError: no reply",
        "failure_kind": "unavailable",
        "http_status": 503,
        "user_id": "u 7",
        "user_index": 3,
        "attempt": 2,
        "round": 4,
        "is_end": True,
    }
    assert [record.getMessage() for record in caplog.records] == [line]
    assert caplog.records[0].levelno == logging.WARNING
    assert str(written) == "user u 7, llm_failure: LLMUnavailableError: no reply"


def test_what_is_not_about_one_user_has_no_user(tmp_path: Path):
    failures = FailureLog(tmp_path)
    written = failures.write(Failure(kind="actor_lost", reason="ActorDiedError"))
    [entry] = read_failures(tmp_path)
    assert {*entry} == {"time", "kind", "reason", "is_end"}
    assert str(written) == "actor_lost: ActorDiedError"


def test_no_key_reaches_the_file_or_the_log_even_cut_in_half(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    failures = FailureLog(tmp_path, secrets=[KEY])
    for before in range(MAX_REASON - len(KEY) - 2, MAX_REASON + 2):
        failures.write(Failure(kind="internal_error", reason="." * before + KEY + " Bearer abcdefgh12345678"))
    text = (tmp_path / FAILURES).read_text() + caplog.text
    for start in range(len(KEY) - 6):
        assert KEY[start : start + 6] not in text
    assert "abcdefgh" not in text


def test_a_reason_of_any_kind_and_length_is_one_short_line(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    failures = FailureLog(tmp_path)
    reasons = ["a\nb\r\nc\u2028d", "\x1b[2J\x07\x9b2J", "\ud800", "Ärger 用户", "x" * 10**6]
    for reason in reasons:
        failures.write(Failure(kind="internal_error", reason=reason, user_id="u\n1"))
    lines = (tmp_path / FAILURES).read_text().split("\n")
    assert len(lines) == len(reasons) + 1
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert max(map(len, lines)) < MAX_REASON + 200
    assert [entry["reason"] for entry in read_failures(tmp_path)][:1] == ["a b c d"]
    assert read_failures(tmp_path)[3]["reason"] == "Ärger 用户"
    assert read_failures(tmp_path)[0]["user_id"] == "u\n1"


def test_a_run_without_failures_has_no_file(tmp_path: Path):
    FailureLog(tmp_path)
    assert not (tmp_path / FAILURES).exists()
    assert read_failures(tmp_path) == []


def test_a_resumed_run_goes_on_after_the_last_whole_line(tmp_path: Path):
    first = FailureLog(tmp_path)
    first.write(Failure(kind="actor_lost", reason="one"))
    with (tmp_path / FAILURES).open("a") as handle:
        handle.write('{"time": "2026-')
    assert [entry["reason"] for entry in read_failures(tmp_path)] == ["one"]
    second = FailureLog(tmp_path)
    second.write(Failure(kind="actor_lost", reason="two"))
    assert [entry["reason"] for entry in read_failures(tmp_path)] == ["one", "two"]


def test_a_file_that_cannot_be_written_stops_the_run(tmp_path: Path):
    (tmp_path / "run").write_text("a file in the folder's place")
    with pytest.raises(StorageError):
        FailureLog(tmp_path / "run").write(Failure(kind="actor_lost", reason="one"))


@pytest.mark.parametrize(
    ("ended_by", "failure_kind", "kind"),
    [
        ("llm_failure", "refused", "llm_failure"),
        ("cancelled", "tool_lost", "tool_lost"),
        ("cancelled", None, "cancelled"),
        ("finish", None, "finish"),
    ],
)
def test_the_kind_of_a_users_failure(ended_by: str, failure_kind: str | None, kind: str):
    assert ending_of(ended_by, failure_kind) == kind
