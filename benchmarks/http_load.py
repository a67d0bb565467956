"""The HTTP API under a fixed rate of requests: what is answered, what is refused, and after how long.

    python benchmarks/http_load.py data/demo --recommenders recommenders/demo --rate 300 --seconds 8
    python benchmarks/http_load.py … --rate 60 --option tools.num_replicas=2 --option requests_per_minute=null

Requests start at their time whether or not earlier ones are answered (an open loop), each with the history of a random
user and a random tool, K = 20, on kept connections from this machine: one client of the rate limit. Latencies are the
client's. Ray, Serve's proxy, the replicas and the client share the cores. `--option` sets an option of the application,
its value in JSON. To measure another version of the code, set PYTHONPATH to its checkout.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import ray
from ray import serve

import toolrec
from toolrec.connect import free_port, start_local
from toolrec.data import load_dataset
from toolrec.serving.app import build_app
from toolrec.serving.config import AppConfig

QUIET = {"log_level": "ERROR", "enable_access_log": False}
WARM_UP = 20


def main() -> int:
    options = _parser().parse_args()
    config = AppConfig(dataset=str(options.dataset), recommenders=str(options.recommenders), **_nested(options.option))
    port = free_port()
    start_local(os.cpu_count() or 1, object_store_bytes=256 * 1024**2)
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port}, logging_config=QUIET)
        serve.run(build_app(config), name="load", route_prefix="/", logging_config=QUIET)
        print(f"code: {Path(toolrec.__file__).parents[1].name}; {options.rate:g} requests/s for {options.seconds:g} s")
        bodies = _bodies(options.dataset, options.seed)
        asyncio.run(_load(f"http://127.0.0.1:{port}", bodies, rate=options.rate, seconds=options.seconds, seed=options.seed))
    finally:
        serve.shutdown()
        ray.shutdown()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--recommenders", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=JSON", help="as tools.num_replicas=2")
    return parser


def _nested(given: Sequence[str]) -> dict[str, Any]:
    """`a.b=1` as `{"a": {"b": 1}}`."""
    nested: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        *parents, last = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = json.loads(value)
    return nested


def _bodies(folder: Path, seed: int) -> list[bytes]:
    dataset = load_dataset(folder)
    chosen = random.Random(seed).sample(range(1, dataset.num_users + 1), min(100, dataset.num_users))
    attributes = ["none", *dataset.pool.attributes]
    histories = [[dataset.pool.item_ids[item] for item in dataset.history(user, "test")] for user in chosen]
    return [
        json.dumps({"history": history, "attribute": attribute, "k": 20}).encode()
        for history in histories
        for attribute in attributes
    ]


async def _load(url: str, bodies: Sequence[bytes], *, rate: float, seconds: float, seed: int) -> None:
    generator = random.Random(seed)
    latencies: dict[str, list[float]] = defaultdict(list)
    shapes: Counter[str] = Counter()

    async def ask(session: aiohttp.ClientSession) -> None:
        began_s = time.monotonic()
        try:
            async with session.post(f"{url}/v1/retrieve", data=generator.choice(bodies)) as response:
                text = await response.text()
                outcome = str(response.status)
        except TimeoutError:
            outcome, text = "client time-out", ""
        except aiohttp.ClientError as error:
            outcome, text = type(error).__name__, ""
        latencies[outcome].append(time.monotonic() - began_s)
        if outcome != "200":
            shapes[f"{outcome}: {text[:80]}"] += 1

    timeout = aiohttp.ClientTimeout(total=30)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        for _ in range(WARM_UP):
            await ask(session)
        await asyncio.sleep(2)
        latencies.clear()
        shapes.clear()
        began_s = time.monotonic()
        tasks = []
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began_s + number / rate - time.monotonic()))
            tasks.append(asyncio.create_task(ask(session)))
        offered_s = time.monotonic() - began_s
        await asyncio.gather(*tasks)
    print(f"offered {len(tasks) / offered_s:.0f} requests/s, all answered after {time.monotonic() - began_s:.1f} s")
    print(_table(latencies, seconds))
    for shape, count in shapes.most_common(4):
        print(f"{count} x {shape}")


def _table(latencies: Mapping[str, Sequence[float]], seconds: float) -> str:
    lines = ["| outcome | requests | a second | p50 | p99 | longest |", "| --- | --- | --- | --- | --- | --- |"]
    for outcome, values in sorted(latencies.items()):
        middle = statistics.median(values)
        high = sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]
        figures = " | ".join(f"{1000 * value:.0f} ms" for value in (middle, high, max(values)))
        lines.append(f"| {outcome} | {len(values)} | {len(values) / seconds:.0f} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
