"""Recordings, the response cache, budgets and dry runs through `toolrec evaluate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from key_marker import MARKER, VARIABLES
from support import Evaluate, lists_of, same, summary_of

from toolrec.errors import RunStoppedError
from toolrec.llm.embedded import run_in_thread
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.llm.flow.budget import Budget
from toolrec.llm.flow.governor import FlowSnapshot
from toolrec.records import Round, ToolCall, Usage
from toolrec.runs.folder import RunFolder, read_spend, read_users
from toolrec.runs.ledger import ledger_of, spend_by, total_usage
from toolrec.simulation.flow.budget_watch import (
    LOOKS_AT_REST,
    UNFINISHED,
    BudgetWatch,
    journal_unfinished,
    spent_before,
    spent_so_far,
)
from toolrec.simulation.memory.actor import SharedMemory, held_round

FEW = ["--users", "12"]
PRICES = f"""
models:
  {MODEL_NAME}: {{input_usd: 1000, output_usd: 1000, checked: 2026-01-31, source: made up}}
"""


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    """A price file in which a token costs a tenth of a cent."""
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES)
    return path


@pytest.fixture(scope="module")
def recording_of_four(evaluate: Evaluate, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The recorded replies of four users."""
    folder = str(tmp_path_factory.mktemp("recording") / "four")
    evaluate("--users", "4", "--record", folder)
    return folder


class TestReplay:
    """`--record` and `--replay`."""

    @pytest.mark.parametrize("flags", [["--finish-policy", "final_rank"], ["--protocol", "text"]])
    def test_a_replay_gives_the_recorded_lists_at_another_concurrency(self, evaluate: Evaluate, tmp_path: Path, flags: list[str]):
        folder = str(tmp_path / "recording")
        recorded = evaluate(*FEW, *flags, "--record", folder)
        replayed = evaluate(*FEW, *flags, "--replay", folder, "--concurrency", "3", "--actors", "1")
        same(recorded, replayed)
        tokens = summary_of(replayed)["tokens"]["total"]
        assert tokens["num_stored_replies"] == tokens["num_calls"] > 0
        assert (tokens["num_attempts"], tokens["prompt_tokens"], tokens["completion_tokens"]) == (0, 0, 0)
        assert tokens["saved_prompt_tokens"] == summary_of(recorded)["tokens"]["total"]["prompt_tokens"]
        protocol = summary_of(replayed)["protocol"]
        assert (protocol["llm_url"], protocol["model"]) == ("recording", MODEL_NAME)
        assert summary_of(recorded)["protocol"]["stored_replies"] == {"recorded": True}

    def test_it_needs_no_endpoint_and_no_key_and_holds_neither(
        self, evaluate: Evaluate, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ):
        folder = tmp_path / "recording"
        with run_in_thread(api_key=MARKER) as server:
            # A variable of the whole session: its actors have it too.
            flags = ["--llm-url", server.base_url, "--llm-model", MODEL_NAME, "--llm-key-env", VARIABLES[1]]
            one = evaluate("--users", "4", *flags, "--record", str(folder))
            address = server.base_url.removeprefix("http://")
        said = capfd.readouterr()
        content = b"".join(path.read_bytes() for path in folder.iterdir())
        assert content and MARKER.encode() not in content and address.encode() not in content
        assert "LLM: " in said.err and MARKER not in said.out + said.err
        same(one, evaluate("--users", "4", "--llm-key-env", "NO_SUCH_KEY", "--replay", str(folder)))

    def test_a_miss_ends_the_run_and_says_whose_call_it_was(
        self, evaluate: Evaluate, recording_of_four: str, capsys: pytest.CaptureFixture
    ):
        evaluate("--users", "4", "--replay", recording_of_four, "--prompt-history-length", "3", expect=2)
        said = capsys.readouterr().err
        assert "surrogate.prompt_history_length was 10, now 3" in said
        assert "the recording has no reply for user" in said and "in round 1: message 2 of 2 (user) is another one" in said

    def test_users_beyond_the_recorded_ones_are_a_miss(
        self, evaluate: Evaluate, recording_of_four: str, capsys: pytest.CaptureFixture
    ):
        evaluate("--users", "5", "--replay", recording_of_four, expect=2)
        assert "nothing was recorded there" in capsys.readouterr().err


class TestCache:
    """`--cache`."""

    def test_a_second_run_asks_nothing_and_comes_to_the_same_lists(self, evaluate: Evaluate, tmp_path: Path, prices: Path):
        cache = ["--cache", str(tmp_path / "cache"), "--cache-max-age", "7d", "--prices", str(prices)]
        first = evaluate(*FEW, *cache)
        second = evaluate(*FEW, *cache)
        same(first, second)
        paid, saved = (summary_of(run)["tokens"]["total"] for run in (first, second))
        assert paid["num_stored_replies"] < paid["num_calls"] == saved["num_stored_replies"]
        assert saved["usd"] == 0 < paid["usd"]
        assert summary_of(second)["protocol"]["stored_replies"] == {"cache": "up to 604800 s old"}
        assert total_usage(ledger_of(read_spend(second), read_users(second))).prompt_tokens == 0


class TestBudget:
    """`--budget-tokens` and `--budget-usd`."""

    def test_the_run_stops_resumable_and_a_higher_budget_completes_it(
        self, evaluate: Evaluate, prices: Path, capsys: pytest.CaptureFixture
    ):
        whole = evaluate(*FEW)
        num_tokens = summary_of(whole)["tokens"]["total"]["prompt_tokens"]
        flags = [*FEW, "--concurrency", "2"]
        run = evaluate(*flags, "--budget-tokens", str(num_tokens // 2), expect=3)
        said = capsys.readouterr().err
        assert "the budget is spent" in said and f"of {num_tokens // 2:,} tokens" in said and "--resume" in said
        spent = spent_so_far(run)
        assert num_tokens // 2 <= spent.prompt_tokens + spent.completion_tokens < num_tokens
        assert 0 < len(read_users(run)) < 12
        # What is spent already counts: the same budget lets nothing more through.
        evaluate(*flags, "--budget-tokens", str(num_tokens // 2), "--resume", run_folder=run, expect=3)
        assert spent_so_far(run) == spent
        evaluate(*flags, "--budget-usd", "1e6", "--prices", str(prices), "--resume", run_folder=run)
        assert lists_of(run).to_dict("records") == lists_of(whole).to_dict("records")

    def test_dollars_without_a_price_are_bad_input(self, evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture):
        folder = evaluate(*FEW, "--budget-usd", "3", run_folder=tmp_path / "run", expect=2)
        assert "--budget-usd needs the model's price" in capsys.readouterr().err
        assert not folder.exists()


def test_a_dry_run_tells_the_bill_of_all(evaluate: Evaluate, tmp_path: Path, prices: Path, capsys: pytest.CaptureFixture):
    evaluate("--dry-run", "--dry-run-users", "5", "--prices", str(prices), run_folder=tmp_path / "run")
    said = capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    few = read_users(tmp_path / "run-dry-run")
    assert len(few) == 5
    tokens = sum(int(part["prompt_tokens"]) for usage in few["usage"] for part in usage)
    assert "Estimate from 5 users" in said and "all 150 users" in said
    assert f"{tokens / 5 * 150:,.0f}" in said and "dollars" in said and "run-dry-run" in said


class TestWithoutRay:
    """What of it needs no run."""

    @staticmethod
    def snapshot(**given: object) -> FlowSnapshot:
        return replace(FlowSnapshot(is_budget_spent=True, in_flight=0, waiting=3), **given)  # type: ignore[arg-type]

    def test_the_watch_waits_for_what_is_in_flight(self):
        watch = BudgetWatch(Budget(max_tokens=10))
        for given in ({"in_flight": 1}, {"waiting": 0}, {}, {"is_budget_spent": False}, {}):
            watch(self.snapshot(**given))
        unreported = self.snapshot(usage=Usage(num_calls=1), counts={"usage_missing": 1})
        for _ in range(LOOKS_AT_REST - 2):  # one look was at rest already
            watch(unreported)
        with pytest.raises(RunStoppedError, match="reports no usage"):
            watch(unreported)
        watch(self.snapshot(in_flight=1))
        for _ in range(LOOKS_AT_REST - 1):
            watch(self.snapshot())
        with pytest.raises(RunStoppedError, match="the budget is spent: 12 of 10 tokens"):
            watch(self.snapshot(usage=Usage(num_calls=1, prompt_tokens=12)))

    async def test_rounds_in_flight_of_a_killed_driver_count_before_the_next_request(self, tmp_path: Path):
        folder = RunFolder.create(tmp_path / "run", {"schema_version": 1, "resume_key": "k", "settings": {}})
        used = Usage(num_calls=1, num_attempts=1, prompt_tokens=100)
        call, empty = ToolCall(name="retrieve"), {"observation": None, "messages": (), "counts": {}, "duration_s": 0.0}
        rounds = [Round(number=n, thought="", call=call, usage={"decide": used}, **empty) for n in (1, 2)]
        memory = SharedMemory(str(folder.rounds_in_flight))
        await memory.record([held_round(3, 1, done) for done in rounds])
        for _ in range(2):  # each entry counts once, however often it is told
            assert spent_before(folder) == used + used
        folder.journal(await SharedMemory(str(folder.rounds_in_flight)).drain_spend())
        assert spent_so_far(tmp_path / "run") == used + used
        folder.close()

    def test_what_was_spent_on_rounds_that_never_ended_is_journalled(self, tmp_path: Path):
        folder = RunFolder.create(tmp_path / "run", {"schema_version": 1, "resume_key": "k", "settings": {}})
        used = {"num_calls": 2, "num_attempts": 2, "prompt_tokens": 100, "cached_tokens": 0, "completion_tokens": 10}
        stored = {"num_stored_replies": 1, "saved_prompt_tokens": 50, "saved_completion_tokens": 5}
        folder.journal([{"user_index": 1, "attempt": 1, "round": 1, "purpose": "decide", "tool": "Finish", **used, **stored}])
        journal_unfinished(
            folder, before=Usage(), session=Usage(num_calls=1, num_attempts=2, prompt_tokens=100, completion_tokens=10)
        )
        assert len(read_spend(tmp_path / "run")) == 1
        more = Usage(num_calls=4, num_attempts=5, prompt_tokens=170, completion_tokens=30)
        journal_unfinished(folder, before=Usage(), session=more)
        # Answers without a reply are no calls, and were paid for.
        journal_unfinished(folder, before=Usage(), session=replace(more, prompt_tokens=175))
        folder.close()
        ledger = ledger_of(read_spend(tmp_path / "run"), read_users(tmp_path / "run").assign(num_rounds=1))
        by_purpose = {spend.key: spend for spend in spend_by(ledger, "purpose")}
        assert by_purpose[UNFINISHED].usage == Usage(num_calls=3, num_attempts=3, prompt_tokens=75, completion_tokens=20)
        assert by_purpose[UNFINISHED].void_usage == by_purpose[UNFINISHED].usage
        assert spent_so_far(tmp_path / "run").prompt_tokens == 175
