"""`toolrec probe-memory`: an LLM that knows everything, one that knows nothing, and the guess that both are compared with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import toolrec.cli
from toolrec.data import Dataset
from toolrec.errors import ConfigError
from toolrec.llm.scripted import ScriptedLLM
from toolrec.probing import ProbeConfig, probe_memory, scored


@pytest.fixture
def dataset(demo: Dataset) -> Dataset:
    return demo


@pytest.fixture
def config(demo_folder: Path) -> ProbeConfig:
    return ProbeConfig(dataset=demo_folder, items=30, users=20)


def prompts_of(llm: ScriptedLLM) -> list[str]:
    return [call.messages[1]["content"] for call in llm.calls]


async def test_an_llm_that_knows_the_titles_is_found_out(dataset, config):
    pool = dataset.pool

    def knowing(messages):
        prompt = messages[1]["content"]
        asked = re.search(r"has the id (\S+)\?", prompt)
        if asked:
            return f"**{pool.titles[pool.index_of(asked.group(1))]}**"
        begun = re.search(r"begins with these words:\n(.+)\n", prompt)
        if begun:
            return next(title for title in pool.titles if title.startswith(f"{begun.group(1)} "))
        return "I do not know."

    llm = ScriptedLLM(knowing)
    report = await probe_memory(dataset, llm, config)
    by_name = {probe.name: probe for probe in report.probes}
    assert by_name["ids"].share == 1.0 and by_name["ids"].baseline == 0.0 and by_name["ids"].is_above
    assert by_name["histories"].share == 0.0 and not by_name["histories"].is_above
    assert by_name["titles"].share > 0
    assert report.usage.num_calls == 30 + 30 + 20


async def test_no_prompt_holds_the_answer(dataset, config):
    llm = ScriptedLLM(lambda _: "Nothing at all")
    report = await probe_memory(dataset, llm, config)
    assert all(probe.share == 0.0 and not probe.is_above for probe in report.probes)
    targets = {dataset.pool.titles[dataset.target(user, "test")] for user in dataset.sample_users(20, 0).tolist()}
    histories = [prompt for prompt in prompts_of(llm) if "comes next" in prompt]
    users = dataset.sample_users(20, 0).tolist()
    for user, prompt in zip(users, histories, strict=True):
        target = dataset.pool.titles[dataset.target(user, "test")]
        assert target in targets
        if dataset.target(user, "test") not in dataset.history(user, "test"):
            assert f". {target}\n" not in prompt


async def test_an_id_is_no_answer(dataset, config):
    llm = ScriptedLLM(lambda messages: (re.search(r"has the id (\S+)\?", messages[1]["content"]) or ["", "none"])[1])
    report = await probe_memory(dataset, llm, config)
    assert all(probe.share == 0.0 for probe in report.probes)


def test_figures_are_paired_with_the_guess():
    probe = scored("ids", [True] * 8 + [False] * 2, [True, False, False, False, False, False, False, False, True, False])
    assert (probe.num_questions, probe.share, probe.baseline) == (10, 8 / 10, 2 / 10)
    assert probe.difference == pytest.approx((8 - 2) / 10)
    # Seven for the LLM and one for the guess: of 2^8 signs, 2 (1 + 8) are as far out.
    assert probe.p == pytest.approx(2 * (1 + 8) / 2**8, abs=0.02)
    assert probe.interval[0] < 0.8 < probe.interval[1]


def test_the_rules_have_nothing_to_remember(demo_folder: Path, capsys: pytest.CaptureFixture[str]):
    assert toolrec.cli.run_command(["probe-memory", str(demo_folder)]) == 2
    assert "--llm-url" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="remember"):
        ProbeConfig(dataset=demo_folder, llm={"base_url": "http://127.0.0.1:1/v1", "model": "toolrec-rules-1"}).llm_config()
