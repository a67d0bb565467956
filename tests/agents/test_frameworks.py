"""Real agents of LangGraph and inspect_ai as strategies, against the embedded endpoint. Skipped where they are not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from without_ray import run_without_ray

from toolrec.errors import ConfigError
from toolrec.llm.embedded import EmbeddedOptions
from toolrec.runs.run import load_run
from toolrec.util.plugins import load_plugin

AGENTS = {
    "toolrec.agents.langgraph_agent:LangGraphStrategy": "langgraph",
    "toolrec.agents.inspect_agent:InspectStrategy": "inspect_ai",
    "examples.agents:inspect_react": "inspect_ai",
    "examples.agents:langgraph_planner": "langgraph",
}
"""The framework of each strategy."""


@pytest.mark.parametrize("strategy", list(AGENTS)[:3])
def test_a_real_agent_does_what_the_surrogate_does(
    strategy: str, small_run: Path, demo_folder: Path, demo_recommenders: Path, tmp_path: Path
):
    """The rules decide by the conversation alone: the same conversation in the framework gives the same run."""
    pytest.importorskip(AGENTS[strategy], reason=f"{AGENTS[strategy]} is not installed")
    run = load_run(
        run_without_ray(demo_folder, demo_recommenders, tmp_path / "run", users=12, **{"surrogate.strategy": strategy})
    )
    own = load_run(small_run)
    for column in ("user_id", "ended_by", "final_items", "num_rounds", "prompt_tokens", "completion_tokens", "num_candidates"):
        assert run.users[column].tolist() == own.users[column].tolist(), column
    assert run.rounds["observation"].tolist() == own.rounds["observation"].tolist()
    assert run.summary_json["surrogate"]["ndcg@10"] == own.summary_json["surrogate"]["ndcg@10"]
    assert run.manifest["settings"]["strategy"] == strategy


@pytest.mark.parametrize("strategy", list(AGENTS)[1:])
def test_the_memory_refuses_what_an_agent_invents(strategy: str, demo_folder: Path, demo_recommenders: Path, tmp_path: Path):
    pytest.importorskip(AGENTS[strategy], reason=f"{AGENTS[strategy]} is not installed")
    options = EmbeddedOptions(share_invented=0.6, share_malformed=0.2)
    run = load_run(
        run_without_ray(
            demo_folder, demo_recommenders, tmp_path / "run", users=8, options=options, **{"surrogate.strategy": strategy}
        )
    )
    counts = [counts.get("memory_unknown", 0) for counts in run.users["counts"]]
    assert sum(counts) > 0 and run.users["ended_by"].isin(["finish", "forced_finish", "invalid_reply"]).all()
    assert run.users["is_finished"].any()
    assert not any(0 in items for items in run.users["final_items"][run.users["is_finished"] & (run.users["num_rounds"] < 4)])


@pytest.mark.parametrize(("strategy", "extra"), [*zip(list(AGENTS)[:2], ("langgraph", "inspect"), strict=True)])
def test_a_framework_that_is_not_installed_is_named(strategy: str, extra: str, monkeypatch: pytest.MonkeyPatch):
    from toolrec.data import AttributeSpec, Pool
    from toolrec.data.pool import MOVIES
    from toolrec.llm.scripted import ScriptedLLM
    from toolrec.surrogate import SurrogateConfig
    from toolrec.tools.rank import RankTool

    for name in [name for name in sys.modules if name.partition(".")[0] == AGENTS[strategy]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, AGENTS[strategy], None)
    pool = Pool(
        item_ids=["", "a"], titles=["", "A"], attributes=[AttributeSpec(name="genre", kind="category")],
        values={"genre": ["War"]}, domain=MOVIES,
    )  # fmt: skip
    llm = ScriptedLLM([])
    tools = {"retrieve": RankTool(llm, pool)}
    with pytest.raises(ConfigError, match=rf"toolrec\[{extra}\]"):
        load_plugin("strategy", strategy)(config=SurrogateConfig(), pool=pool, llm=llm, tools=tools)
