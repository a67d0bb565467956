"""What Prometheus is told: scraped from a real Ray's own port while a real run is under way."""

from __future__ import annotations

import asyncio
import re
import socket
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from support import start_cli, tasks_of

from toolrec.connect import connected, free_port
from toolrec.data import Dataset
from toolrec.errors import ConfigError
from toolrec.llm import LLMConfig
from toolrec.llm.embedded import EmbeddedOptions, run_in_thread
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.llm.flow.budget import Budget
from toolrec.llm.flow.governor import FlowSnapshot
from toolrec.llm.prices import Price
from toolrec.records import Usage
from toolrec.runs.failures import Failure
from toolrec.runs.folder import RunFolder, read_rounds
from toolrec.simulation.actor_pool import ActorPool
from toolrec.simulation.actors import LocalTools, SimulationSpec
from toolrec.simulation.config import SimulationConfig
from toolrec.simulation.driver import Driver
from toolrec.simulation.flow.watch import FlowWatch
from toolrec.simulation.monitor.live import RunWatch
from toolrec.simulation.monitor.prometheus import ACTOR_METRICS, PREFIX, RUN_METRICS, RunMetrics, label
from toolrec.surrogate import SurrogateConfig

ROOT = Path(__file__).resolve().parents[2]
PRICE = Price(model=MODEL_NAME, input_usd=2.0, cached_input_usd=1.0, output_usd=8.0, checked="2026-01-01", source="made up")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(run: str) -> Samples:
    """The samples of one run, summed over processes, by name and by their own labels."""
    [node] = ray.nodes()
    url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    text = urllib.request.urlopen(url, timeout=10).read().decode()
    samples: Samples = {}
    for name, labels, value in re.findall(r"^ray_(toolrec_\w+)\{(.*)\} (\S+)$", text, flags=re.MULTILINE):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if tags["run"] == run:
            own = frozenset((tag, tags[tag]) for tag in ("ended_by", "kind", "outcome", "attribute") if tag in tags)
            if "le" not in tags:
                samples[name, own] = samples.get((name, own), 0.0) + float(value)
    return samples


def scraped_until(is_there: Callable[[Samples], bool], run: str) -> Samples:
    """Processes pass on what they have every second (`conftest.py`)."""
    deadline_s = time.monotonic() + 120
    while not is_there(samples := scraped(run)):
        assert time.monotonic() < deadline_s, samples
        time.sleep(0.5)
    return samples


def test_a_run_can_be_followed_with_prometheus(
    demo: Dataset, demo_folder: Path, demo_recommenders: Path, local_ray: None, tmp_path: Path
):
    spec = SimulationSpec(
        surrogate=SurrogateConfig(),
        llm=LLMConfig(base_url="http://127.0.0.1/v1", model=MODEL_NAME),
        tools=LocalTools(dataset=str(demo_folder), recommenders=str(demo_recommenders)),
        run="followed",
    )
    tasks = tasks_of(demo, 40)
    config = SimulationConfig(concurrency=20, num_actors=2)
    folder = RunFolder.create(tmp_path / "followed", {"schema_version": 1, "resume_key": "k", "settings": {}})
    actor_pool = ActorPool(spec, demo.pool, config, embedded=EmbeddedOptions())
    flow = FlowWatch(actor_pool.governor, config.flow, outage_timeout_s=60)
    watch = RunWatch(num_users=41, earlier={"llm_failure": 1}, budget=Budget(price=PRICE))
    watch.failed(Failure(kind="actor_lost", reason="as if"))
    metrics = RunMetrics("followed")

    async def go() -> None:
        await Driver(actor_pool, folder, config, watch, flow).run(tasks)
        watch.see(await flow.last())
        metrics.tell(watch.facts())

    try:
        asyncio.run(go())
        rounds = read_rounds(tmp_path / "followed")
        num_lists = int(rounds["mark"].str.startswith("Retrieve[").sum())
        seen = scraped_until(lambda s: _sum(s, "toolrec_tool_call_seconds_count") >= num_lists and _ended(s) >= 41, "followed")
    finally:
        actor_pool.stop()
        folder.close()
    usage = watch.usage
    assert seen["toolrec_users_total", _tags(ended_by="finish")] == 40
    assert seen["toolrec_users_total", _tags(ended_by="llm_failure")] == 1
    assert seen["toolrec_users_in_flight", _tags()] == 0
    assert seen["toolrec_users_left", _tags()] == 0
    assert seen["toolrec_faults_total", _tags(kind="actor_lost")] == 1
    assert seen["toolrec_llm_requests_total", _tags(outcome="completion")] == usage.num_calls
    assert seen["toolrec_llm_tokens_total", _tags(kind="prompt")] == usage.prompt_tokens - usage.cached_tokens
    assert seen["toolrec_llm_tokens_total", _tags(kind="completion")] == usage.completion_tokens
    assert seen["toolrec_cost_usd_total", _tags()] == pytest.approx(PRICE.cost_usd(usage))
    assert seen["toolrec_llm_request_seconds_count", _tags()] == usage.num_calls
    by_attribute = rounds["mark"].str.extract(r"Retrieve\[(.*)\]")[0].value_counts()
    for attribute, count in by_attribute.items():
        assert seen["toolrec_tool_call_seconds_count", _tags(attribute=attribute)] == count
    told = {name.removesuffix("_count").removesuffix("_sum") for name, _ in seen}
    silent = {"toolrec_llm_paused_seconds_total"}  # the endpoint was well
    assert told == {spec.name for spec in (*RUN_METRICS, *ACTOR_METRICS)} - silent


def test_counters_never_go_back():
    told: list[tuple[str, float]] = []

    class Recorded:
        def __init__(self, name: str) -> None:
            self.name = name

        def inc(self, value: float, tags: dict[str, str] | None) -> None:
            told.append((self.name, value))

        def set(self, value: float) -> None:
            pass

    metrics = RunMetrics("r")
    metrics._metrics = {spec.name: Recorded(spec.name) for spec in RUN_METRICS}
    watch = RunWatch(num_users=3)
    for num_calls, tokens in ((10, 100), (4, 40), (12, 130)):  # the second as by a governor that was just restarted
        watch.see(FlowSnapshot(num_calls=num_calls, usage=Usage(prompt_tokens=tokens)))
        metrics.tell(watch.facts())
    assert [value for name, value in told if name == "toolrec_llm_requests_total"] == [10, 2]
    assert [value for name, value in told if name == "toolrec_llm_tokens_total"] == [100, 30]


def test_the_page_on_metrics_has_all_of_them():
    page = (ROOT / "docs" / "reference" / "prometheus.md").read_text(encoding="utf-8")
    for spec in (*RUN_METRICS, *ACTOR_METRICS):
        labels = ", ".join(f"`{tag}`" for tag in spec.tags) or "–"
        assert f"| `{spec.name}` | {spec.kind} | {labels} | {spec.meaning} |" in page
        ends = {"counter": "_total", "histogram": "_seconds"}
        assert spec.name.endswith(ends.get(spec.kind, ""))
    names = {spec.name for spec in (*RUN_METRICS, *ACTOR_METRICS)}
    asked = {name.removesuffix("_bucket") for name in re.findall(rf"{PREFIX}(toolrec_\w+)", page)}
    assert asked <= names and len(asked) >= 4


def test_a_running_ray_keeps_its_port(local_ray: None):
    with pytest.raises(ConfigError, match="a running Ray has a port of its own"), connected(metrics_port=9_999):
        raise AssertionError("connected")


def test_a_port_that_is_taken_is_said_before_anything_starts(demo_folder: Path, demo_recommenders: Path, tmp_path: Path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        flags = ["--recommenders", str(demo_recommenders), "--run", str(tmp_path / "run"), "--metrics-port", port]
        process = start_cli("evaluate", str(demo_folder), *flags)
        output, _ = process.communicate(timeout=400)
    assert process.returncode == 2
    assert f"this port cannot answer Prometheus ([Errno 98] Address already in use); got: {port}" in output
    assert not (tmp_path / "run").exists()


def test_a_port_of_ones_own_answers(demo_folder: Path, demo_recommenders: Path, tmp_path: Path):
    port = free_port()
    with run_in_thread(EmbeddedOptions(latency_s=0.5)) as llm:
        flags = ["--recommenders", str(demo_recommenders), "--run", str(tmp_path / "run"), "--metrics-port", str(port)]
        flags += [
            "--tools",
            "local",
            "--num-cpus",
            "1",
            "--llm-url",
            llm.base_url,
            "--llm-model",
            MODEL_NAME,
            "--concurrency",
            "1",
            "--actors",
            "1",
        ]
        process = start_cli("evaluate", str(demo_folder), *flags)
        try:
            deadline_s = time.monotonic() + 300
            while 'run="run"' not in _answer(port):
                assert process.poll() is None and time.monotonic() < deadline_s
                time.sleep(0.5)
        finally:
            process.terminate()
            output, _ = process.communicate(timeout=240)
    assert f"Prometheus is answered at http://127.0.0.1:{port}/metrics" in output


def _answer(port: int) -> str:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    except OSError:  # not yet
        return ""


def _tags(**tags: str) -> frozenset[tuple[str, str]]:
    return frozenset(tags.items())


def _sum(samples: Samples, name: str) -> float:
    return sum(value for (known, _), value in samples.items() if known == name)


def _ended(samples: Samples) -> float:
    return _sum(samples, "toolrec_users_total")


def test_names_beyond_ascii_become_labels_that_ray_takes(local_ray: None):
    assert label("läufe/ü") == "l\\xe4ufe/\\xfc"
    RUN_METRICS[1].made("läufe 運行").set(1.0)
