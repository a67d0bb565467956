"""Endpoints as they misbehave: each kind is a right run, a refusal before the first user, or a failed user with its reason."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from benchmarks.endpoint_cases import BASELINE, Bench, CaseResult, case_names, cases_file, quirky_endpoint, run_all
from toolrec.data import Dataset

RIGHT = ("01", "02", "03", "04", "08", "17", "20", "21", "22e", "22fj", "22fn", "22fo", "22fu", "28a", "28g")
"""Beginnings of the names of cases that run as if the endpoint behaved."""
SLOW = ("26", "29f")
"""Cases that wait for time-outs."""


@pytest.fixture(scope="module")
def results(demo: Dataset) -> Iterator[dict[str, CaseResult]]:
    """What became of two users at every endpoint."""
    if not cases_file().is_file():
        pytest.skip(f"{cases_file().name} is not at hand (beside TOOLREC_TEST_DATA)")
    with quirky_endpoint() as base:
        names = [name for name in case_names(base) if not name.startswith(SLOW)]
        yield {result.case: result for result in asyncio.run(run_all(Bench(base, demo, num_users=2), names))}


def test_no_user_finishes_with_a_list_that_its_llm_did_not_mean(results: dict[str, CaseResult]) -> None:
    assert results[BASELINE].verdict == "right"
    wrong = [str(result) for result in results.values() if result.verdict in ("differs", "CRASH")]
    assert not wrong


def test_what_can_be_read_or_met_is_a_right_run(results: dict[str, CaseResult]) -> None:
    chosen = [result for name, result in results.items() if name.startswith(RIGHT)]
    assert len(chosen) > 75
    assert not [str(result) for result in chosen if result.verdict != "right"]


def test_what_fails_says_why(results: dict[str, CaseResult]) -> None:
    for result in results.values():
        if result.verdict in ("refused", "stopped", "failed"):
            assert result.detail, result.case


@pytest.mark.parametrize("case", ["05a_length_empty", "05f2_length_cut_clean", "32zc2_length_cut_clean", "32zd_think_cut"])
def test_a_reply_cut_by_the_limit_names_the_flag(results: dict[str, CaseResult], case: str) -> None:
    assert results[case].verdict == "failed" and "--llm-max-output-tokens" in results[case].detail


def test_a_cut_prompt_is_counted(results: dict[str, CaseResult]) -> None:
    assert results["16b_ollama_window"].counts["prompt_not_growing"] >= 2
