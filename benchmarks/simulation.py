"""Users a second and CPU a user at a fixed-latency endpoint, beside LangGraph's ReAct agent where its environment is given.

    python benchmarks/simulation.py data/demo --recommenders recommenders/demo --users 8000 --concurrency 2000 --latency-s 5
    python benchmarks/simulation.py … --peer-python PEER/bin/python --peer-folder FOLDER

A user makes 4 LLM calls and 3 tool calls of 20 items. Rows: `everything on` is `toolrec evaluate` as a user runs it (tools
on Serve, memory check, shared memory, run folder); `loop alone` (`--loop`) is the surrogate in one process with tools
local and no run folder, which is what the peer has. CPU is that of all our processes, Ray's included, between the first
user's start and the last one's end, the endpoint's apart; memory is the peak sum of PSS. The peer's folder holds
`endpoint.py` and `langgraph_peer.py`, run in the peer's own environment (langgraph, langchain-openai, uvicorn).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from toolrec.capacity.processes import Watched
from toolrec.connect import free_port

HERE = Path(__file__).parent
PEER_PORT = 9912
LLM_CALLS, TOOL_CALLS = 4, 3
SAMPLE_S = 0.5


def main() -> int:
    options = _parser().parse_args()
    print(f"{options.users} users, {options.concurrency} in flight, endpoint at {options.latency_s:g} s, {os.cpu_count()} cores")
    if options.latency_s:
        ideal = options.concurrency / (LLM_CALLS * options.latency_s)
        print(f"ideal: {ideal:.1f} users/s (users in flight over {LLM_CALLS} latencies)")
    for _ in range(options.repeats):
        if options.peer_python:
            _peer(options)
        if options.loop:
            _loop_row(options)
        if not options.loop_only and _everything_on(options):
            return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--recommenders", type=Path, required=True)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--attributes", default="none,genre,release_year", help="the three calls of a user")
    parser.add_argument("--loop", action="store_true", help="also the loop alone: one process, tools local, no run folder")
    parser.add_argument("--loop-only", action="store_true", help="of ours, only that row")
    parser.add_argument("--loop-child", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--peer-python", type=Path, help="the peer's interpreter")
    parser.add_argument("--peer-folder", type=Path, default=_peer_folder(), help="endpoint.py and langgraph_peer.py")
    parser.add_argument("--repeats", type=int, default=1, help="rows of each kind, in turns")
    parser.add_argument("--flags", default="", help="more flags of `toolrec evaluate`, in one string")
    return parser


def _peer_folder() -> Path:
    data = os.environ.get("TOOLREC_TEST_DATA", HERE.parent / ".." / "shared" / "data")
    return Path(data).resolve().parent / "bench"


def _everything_on(options: argparse.Namespace) -> int:
    """`toolrec evaluate`, its process tree watched from outside."""
    run = Path(tempfile.mkdtemp(prefix="toolrec-bench-")) / "run"
    with fixed_endpoint(options) as url:
        command = [sys.executable, "-m", "toolrec", "evaluate", str(options.dataset), "--recommenders", str(options.recommenders)]
        command += ["--run", str(run), "--users", str(options.users), "--concurrency", str(options.concurrency)]
        command += ["--llm-url", url, "--llm-model", "fixed", "--no-llm-check", *options.flags.split()]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        watched = Watched(process.pid, memory_every=4)
        while process.poll() is None:
            watched.sample()
            time.sleep(SAMPLE_S)
        counts = endpoint_counts(url)
    if process.returncode != 0:
        print(f"toolrec evaluate ended with {process.returncode}")
        return process.returncode
    _say_everything(options, run, watched, counts)
    return 0


def _say_everything(options: argparse.Namespace, run: Path, watched: Watched, counts: dict[str, int]) -> None:
    from toolrec.runs.folder import read_users

    users = read_users(run)
    start_s, end_s = float(users["started_s"].min()), float(users["ended_s"].max())
    cpu_s = watched.cpu_between(start_s, end_s)
    total_s = sum(cpu_s.values())
    ok = int((users["ended_by"] == "finish").sum())
    llm_calls, tool_calls = sum(counts.values()) / len(users), float(users["num_tool_calls"].mean())
    _row("everything on", len(users), end_s - start_s, total_s, watched.peak_bytes, options)
    print(f"    {llm_calls:.2f} HTTP calls and {tool_calls:.2f} tool calls a user, {ok} of {len(users)} finished")
    for name, seconds in sorted(cpu_s.items(), key=lambda entry: -entry[1])[:12]:
        if 1000 * seconds / len(users) >= 0.05:
            print(f"    {1000 * seconds / len(users):6.2f} ms  {name}")


def _row(name: str, users: int, wall_s: float, cpu_s: float, peak_bytes: float, options: argparse.Namespace) -> None:
    share = ""
    if options.latency_s:
        share = f", {users / wall_s * LLM_CALLS * options.latency_s / options.concurrency:.0%} of the ideal"
    figures = f"{users / wall_s:.1f} users/s, {1000 * cpu_s / users:.1f} ms CPU a user, {peak_bytes / 1024**3:.2f} GiB"
    print(f"{name}: {figures}, {wall_s:.1f} s{share}", flush=True)


@contextlib.contextmanager
def fixed_endpoint(options: argparse.Namespace) -> Iterator[str]:
    """The endpoint in a process of its own; gives its base URL."""
    port = free_port()
    command = [sys.executable, str(HERE / "fixed_endpoint.py"), "--port", str(port), "--latency-s", str(options.latency_s)]
    process = subprocess.Popen([*command, "--attributes", options.attributes])
    try:
        _await_port(port, process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        times = psutil.Process(process.pid).cpu_times()
        print(f"    (endpoint: {1000 * (times.user + times.system) / options.users:.1f} ms CPU a user, not counted below)")
        process.terminate()
        process.wait()


def endpoint_counts(url: str) -> dict[str, int]:
    """Requests by the number of observations that they held."""
    with urllib.request.urlopen(f"{url}/counts") as reply:
        counts: dict[str, int] = json.load(reply)
    return counts


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None:
            raise SystemExit(f"the endpoint ended with {process.returncode}")
        time.sleep(0.1)
    raise SystemExit("the endpoint did not start")


def _peer(options: argparse.Namespace) -> None:
    """LangGraph's agent at the peer's own endpoint; it prints its row itself."""
    uvicorn = [str(options.peer_python), "-m", "uvicorn", "endpoint:app", "--port", str(PEER_PORT)]
    environment = {**os.environ, "LATENCY_S": str(options.latency_s)}
    endpoint = subprocess.Popen([*uvicorn, "--log-level", "error", "--backlog", "4096"], cwd=options.peer_folder, env=environment)
    try:
        _await_port(PEER_PORT, endpoint)
        script = str(options.peer_folder / "langgraph_peer.py")
        subprocess.run([str(options.peer_python), script, str(options.users), str(options.concurrency)], check=True)
    finally:
        endpoint.terminate()
        endpoint.wait()


def _loop_row(options: argparse.Namespace) -> None:
    """The loop alone, in a process of its own, so that nothing else is in its CPU and memory."""
    with fixed_endpoint(options) as url:
        subprocess.run([sys.executable, *sys.argv, "--loop-child", url], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def loop_alone(options: argparse.Namespace) -> None:
    """The surrogate in one process: tools local, memory check on, no Ray, no run folder."""
    import torch

    from toolrec.data import load_dataset
    from toolrec.llm import LLMConfig, OpenAIChat
    from toolrec.recommenders import load_recommenders
    from toolrec.records import UserTask
    from toolrec.surrogate import Surrogate, SurrogateConfig
    from toolrec.tools.local import LocalRetriever
    from toolrec.tools.rank import RankTool
    from toolrec.tools.retrieval import RetrievalTool

    torch.set_num_threads(1)
    dataset = load_dataset(options.dataset)
    members = load_recommenders(options.recommenders, dataset)
    members.pop("popularity")

    async def run() -> None:
        config = SurrogateConfig()
        llm_config = LLMConfig(base_url=options.loop_child, model="fixed", api_key_env="", concurrency=options.concurrency)
        async with OpenAIChat(llm_config) as llm:
            tools: dict[str, Any] = {
                "retrieve": RetrievalTool(LocalRetriever(members, mask_seen=True), dataset.pool, config),
                "rank": RankTool(llm, dataset.pool, config),
            }
            surrogate = Surrogate(config=config, pool=dataset.pool, llm=llm, tools=tools)
            window = asyncio.Semaphore(options.concurrency)

            async def one(user_index: int) -> str:
                async with window:
                    history = tuple(dataset.history(user_index, "test").tolist())
                    return (
                        await surrogate.run(UserTask(user_index=user_index, user_id=str(user_index), history=history))
                    ).ended_by

            users = dataset.sample_users(options.users, 0).tolist()
            await asyncio.gather(*(one(user) for user in users[:20]))
            cpu_s, start_s = time.process_time(), time.perf_counter()
            ended = await asyncio.gather(*(one(user) for user in users))
            wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
            assert set(ended) == {"finish"}, set(ended)
            _row("loop alone", len(users), wall_s, cpu_s, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, options)

    asyncio.run(run())


if __name__ == "__main__":
    chosen = _parser().parse_args()
    if chosen.loop_child:
        loop_alone(chosen)
    else:
        sys.exit(main())
