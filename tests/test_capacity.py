"""`toolrec plan`: the formula by hand, the costs of a watched run, and bad input."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from toolrec.capacity.config import PlanSettings
from toolrec.capacity.costs import DRIVER, GOVERNOR, KINDS, MEMORY, REST, SIMULATION, TOOLS, Costs, read_costs
from toolrec.capacity.measure import costs_of, kind_of
from toolrec.capacity.plan import make_plan
from toolrec.capacity.processes import Watched
from toolrec.cli import run_command
from toolrec.errors import ConfigError
from toolrec.llm.prices import Price

COSTS = Costs(
    source="by hand",
    requests=4,
    tool_calls=3,
    prompt_tokens=3000,
    completion_tokens=200,
    cpu_s={SIMULATION: 0.006, TOOLS: 0.004, MEMORY: 0.001, GOVERNOR: 0.0005, DRIVER: 0.0005, REST: 0.0},
    process_bytes=dict.fromkeys(KINDS, 1e8),
    in_flight_bytes=1e5,
    disk_bytes=1000,
    start_s=30,
    scoring_s=0.01,
    num_deployments=4,
)


def plan_for(**settings: Any):
    return make_plan(PlanSettings(**{"users": 100_000, "latency_s": 5.0, "utilisation": 0.5} | settings), COSTS)


def test_the_endpoints_rate_sets_the_pace():
    made = plan_for(requests_per_minute=2400)
    assert made.limits[0].name == "--requests-per-minute"
    assert made.users_per_s == 2400 / 60 / 4
    assert made.concurrency == math.ceil(10 * (4 * 5 + 0.012))
    assert made.simulation_s == pytest.approx(100_000 / 10)
    assert made.total_s == pytest.approx(100_000 / 10 + 30 + 100_000 * 0.01)
    assert sum(made.cores.values()) == pytest.approx(10 * 0.012 / 0.5)
    assert (made.num_nodes, made.num_actors, made.num_replicas) == (1, 1, 1)
    assert made.disk_bytes == 100_000 * 1000


def test_tokens_count_prompts_and_replies():
    assert plan_for(tokens_per_minute=192_000).users_per_s == pytest.approx(192_000 / 60 / 3200)
    # Twice the requests are twice the tokens.
    assert plan_for(tokens_per_minute=192_000, requests_per_user=8).users_per_s == pytest.approx(192_000 / 60 / 6400)


def test_without_any_other_limit_the_slowest_single_process_sets_the_pace():
    made = plan_for(cpus_per_node=4)
    assert made.limits[0].name == "the shared memory (one process)"
    assert made.users_per_s == 0.5 / 0.001
    assert made.num_actors == 500 * 0.006 / 0.5
    assert made.num_replicas == math.ceil(500 * 0.004 / 0.5 / 4)
    assert made.num_nodes == math.ceil(500 * 0.012 / 0.5 / 4)


def test_memory_may_need_more_nodes_than_cores_do():
    made = plan_for(memory_per_node_gib=1)
    processes = (6 + 1 * 4 + 4) * 1e8  # actors, replicas of four tools, and one each of the other four kinds
    assert made.memory_bytes == pytest.approx(processes + made.concurrency * 1e5)
    assert made.num_nodes == math.ceil(made.memory_bytes / 1024**3)


def test_hours_ask_for_fewer_nodes_or_cannot_be_met():
    made = plan_for(hours=2)
    assert made.is_paced and not made.is_too_slow
    assert made.total_s == pytest.approx(7200)
    assert made.users_per_s == pytest.approx(100_000 / (7200 - 30 - 1000))
    late = plan_for(hours=2, nodes=1, cpus_per_node=0.1)
    assert late.is_too_slow and late.limits[0].name == "--nodes"
    assert late.total_s > 7200
    assert plan_for(hours=0.1).is_too_slow, "scoring alone takes longer"


def test_dollars():
    price = Price(model="m", input_usd=1, cached_input_usd=1, output_usd=10, checked="2026-11-28", source="by hand")
    settings = PlanSettings(users=1000, usd_per_node_hour=2, requests_per_minute=600)
    made = make_plan(settings, COSTS, price=price)
    assert made.llm_usd == pytest.approx(1000 * (3000 * 1 + 200 * 10) / 1e6)
    assert made.nodes_usd == pytest.approx(made.num_nodes * 2 * made.total_s / 3600)
    assert plan_for().llm_usd is None and plan_for().nodes_usd is None


def test_the_costs_that_come_with_the_package_are_whole_and_say_where_they_were_measured():
    shipped = read_costs(None)
    assert set(shipped.cpu_s) == set(shipped.process_bytes) == set(KINDS)
    assert all(seconds > 0 for kind, seconds in shipped.cpu_s.items() if kind != REST)
    assert "CPUs" in shipped.source and shipped.requests > 1 and shipped.scoring_s > 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ray::Simulation", SIMULATION),
        ("ray::ServeReplica:toolrec-run-1:genre", TOOLS),
        ("ray::SharedMemory", MEMORY),
        ("ray::FlowGovernor", GOVERNOR),
        ("python -m toolrec", DRIVER),
        ("ray::ServeController", REST),
        ("gcs_server", REST),
    ],
)
def test_processes_are_known_by_their_titles(name: str, kind: str):
    assert kind_of(name) == kind


def test_a_watched_process_gives_its_cpu_between_two_moments():
    """A real process that works for a second; what it does before and after the users is not theirs."""
    code = "import time\nend = time.time() + 1.0\nwhile time.time() < end: pass\ntime.sleep(0.4)"
    process = subprocess.Popen([sys.executable, "-c", code])
    watched, begun_s = Watched(process.pid), time.time()
    while process.poll() is None:
        watched.sample()
        time.sleep(0.02)
    ended_s = time.time()
    usage = [{"purpose": "decide", "num_calls": 4, "prompt_tokens": 100, "completion_tokens": 10}]
    users = pd.DataFrame(
        {"started_s": [begun_s] * 2, "ended_s": [ended_s - 0.2] * 2, "num_tool_calls": [3, 5], "usage": [usage, usage]}
    )
    costs = costs_of(users, watched, begun_s=begun_s - 2, ended_s=ended_s, run_bytes=500, source="here")
    assert 0.05 < 2 * sum(costs.cpu_s.values()) < 2.5
    assert costs.cpu_s[REST] == sum(costs.cpu_s.values()), "a program of no known name"
    assert (costs.requests, costs.tool_calls, costs.prompt_tokens, costs.disk_bytes) == (4, 4, 100, 250)
    assert costs.start_s == pytest.approx(2) and costs.scoring_s == pytest.approx(0.1)
    assert costs.process_bytes[REST] > 1e6


def test_costs_are_written_and_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    COSTS.write(tmp_path / "costs.json")
    assert read_costs(tmp_path / "costs.json") == COSTS
    command = ["plan", "--users", "100000", "--requests-per-minute", "2400", "--costs", str(tmp_path / "costs.json")]
    assert run_command([*command, "--hours", "1"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "by hand. 4.0 requests" in said
    assert "users a second 10.0 set by --requests-per-minute" in said
    assert "1 hours are not enough" in said and "Dollars of the LLM are not known" in said


def test_a_runs_own_requests_and_tokens_are_taken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    usage = [{"purpose": "decide", "num_calls": 8, "prompt_tokens": 1, "completion_tokens": 1}]
    users = pd.DataFrame({"usage": [usage], "num_tool_calls": [6]})
    monkeypatch.setattr("toolrec.runs.folder.read_users", lambda run: users)
    assert run_command(["plan", "--users", "10", "--run", "runs/dry"]) == 0
    assert "8.0 requests, 6.0 tool calls" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--users", "0"], "--users"),
        (["--users", "10", "--llm-latency-s", "-1"], "--llm-latency-s"),
        (["--users", "10", "--costs", "nowhere.json"], "nowhere.json"),
        (["--users", "10", "--out", "x.json"], "--out needs --measure"),
        (["--users", "10", "--measure", "data/demo", "--costs", "x.json"], "do not go together"),
        (["--users", "10", "--run", "nowhere"], "no run folder here"),
        (["--users", "10", "--set", "cpus=3"], "cpus"),
    ],
)
def test_bad_input_is_told(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]):
    assert run_command(["plan", *flags]) == 2
    assert words in capsys.readouterr().err


def test_another_files_content_is_refused(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"source": "x"}')
    with pytest.raises(ConfigError, match="no file of costs"):
        read_costs(tmp_path / "a.json")
