"""Misbehaving endpoints: what becomes of ten users at each of them.

    python benchmarks/endpoint_cases.py                # every case, and the counts
    python benchmarks/endpoint_cases.py 22fn_upper     # some cases, with every user's end

The cases are those of `quirky.py` (beside the test data, see `TOOLREC_TEST_DATA`): an endpoint that plays a sensible user and
misbehaves in one way for each address. The surrogate loop and the client run in this process against it, on the demo's pool,
with lists from a fixed order and without Ray. `right`: the lists of the well-behaved endpoint. `refused`: one error before the
first user. `stopped`: an error that ends a run. `failed`: every user whose list differs is a failed one, with its kind.
`differs`: users finish with other lists.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolrec.data import Dataset, load_dataset
from toolrec.data.filters import FilterConfig
from toolrec.data.prepare import prepare
from toolrec.data.sources.demo import DemoConfig, read_demo
from toolrec.errors import LLMError, LLMRefusedError, MessagesRefusedError, ToolError
from toolrec.llm import LLMConfig
from toolrec.llm.caller import CALLER, Caller
from toolrec.llm.client import OpenAIChat
from toolrec.records import RankedItem, UserTask
from toolrec.surrogate import Surrogate, SurrogateConfig
from toolrec.surrogate.check import try_endpoint
from toolrec.tools.rank import RankTool
from toolrec.tools.retrieval import RetrievalTool

HERE = Path(__file__).parent
BASELINE = "00_ok"
NUM_USERS = 10
KEY = "MARKER" + "KEY12345"
CASES_AT_ONCE = 6
DIFFERENT_LISTS: dict[str, str] = {
    "22fe_twelve": "the first ten of twelve",
    "22ff2_same_ten": "one item ten times: nine slots stay empty, counted",
    "22ff_duplicates": "repeats leave their slots empty, counted",
    "22fq_three": "a finish of three items",
    "22ft_one_invented": "the invented one is asked for again, then its slot stays empty, counted",
    "23a_three": "three lists, the last one another attribute's",
    "23b2_retrieve_finish_placeholder": "finishes after one list: the finish beside a retrieval is refused",
    "23b3_retrieve_finish_guess": "finishes after one list: the finish beside a retrieval is refused",
    "23b_retrieve_finish": "finishes after one list: the finish beside a retrieval is refused",
    "23f_finish_first": "finishes after one list: the finish beside a retrieval is refused",
    "23h_finish_refused_then": "finishes after one list: the finish beside a retrieval is refused",
    "23d_forty": "forty calls at once: seven rounds",
    "23e_nine": "nine calls at once: seven rounds",
    "22h2_k_1000_sticky": "K of 1,000 is refused as an observation until the forced finish",
    "22x_genre_value": "an attribute that there is not is refused as an observation until the forced finish",
    "31h_rank_loop": "ranks until the forced finish",
    "32v_two_attributes": "two attributes are refused as an observation",
    "16_truncated": "a cut conversation, counted while the run goes on",
    "16b_ollama_window": "a cut conversation, counted while the run goes on",
    "30a_emoji_ids": "one invented item: asked for again, then its slot stays empty, counted",
    "31a2_loop_then_obeys": "repeats one retrieval until the forced finish",
    "32d_hallucinated": "goes on after a made-up observation, which is cut",
    "K8_echo_finish_items": "the key in a list is masked, and its slot left out",
}
"""Cases whose lists may differ from the well-behaved ones', and why that is right."""


class FixedOrder:
    """Lists in an order of the attribute's own, unseen items only."""

    attributes = ("genre", "release_year", "mood")

    def __init__(self, num_items: int) -> None:
        self._orders = {
            name: sorted(range(1, num_items + 1), key=lambda i, name=name: hashlib.md5(f"{name}-{i}".encode()).digest())
            for name in ("none", *self.attributes)
        }

    async def retrieve(self, attribute: str, history: Sequence[int], *, k: int) -> list[RankedItem]:
        """The first `k` of the attribute's order."""
        if attribute not in self._orders:
            raise ToolError("no such attribute", value=attribute)
        start = 7 * (history[0] % 40)
        order = self._orders[attribute]
        unseen = [item for item in (*order[start:], *order[:start]) if item not in history][:k]
        return [RankedItem(item_index=item, score=round(5 - 0.01 * place, 4)) for place, item in enumerate(unseen)]


@dataclass(slots=True)
class CaseResult:
    """What became of a case's users; `ends` counts `ended_by`, `same` users with the baseline's list."""

    case: str
    verdict: str
    detail: str = ""
    ends: Counter[str] = field(default_factory=Counter)
    same: int = 0
    reasks: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    lists: list[tuple[int, ...]] = field(default_factory=list)

    def __str__(self) -> str:
        ends = ", ".join(f"{kind} {count}" for kind, count in self.ends.items())
        return f"{self.case:36} {self.verdict:8} {ends:32} same {self.same:2} re-asks {self.reasks:.1f}  {self.detail[:150]}"


def cases_file() -> Path:
    """Where `quirky.py` lies, whether or not it is there."""
    data = os.environ.get("TOOLREC_TEST_DATA", HERE.parent / ".." / "shared" / "data")
    return Path(data).resolve().parent / "cases" / "llm" / "quirky.py"


@contextmanager
def quirky_endpoint() -> Iterator[str]:
    """The endpoint in a process of its own; gives its address without `/q/CASE/v1`."""
    port = _free_ports()
    folder = tempfile.mkdtemp(prefix="toolrec-cases-")
    process = subprocess.Popen(
        [sys.executable, str(cases_file()), str(port)],
        env={**os.environ, "QUIRKY_REQUESTS": folder, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        deadline_s = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/cases").close()
                break
            except OSError:
                if time.monotonic() > deadline_s or process.poll() is not None:
                    raise
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()  # some cases hold their answer back for an hour
        process.wait()


def _free_ports() -> int:
    """A port with the two above it free as well."""
    for port in range(20_000, 60_000, 17):
        held = [socket.socket() for _ in range(3)]
        try:
            for offset, one in enumerate(held):
                one.bind(("127.0.0.1", port + offset))
            return port
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    raise OSError("no port is free")


def case_names(base: str) -> list[str]:
    """Every case of the endpoint."""
    with urllib.request.urlopen(f"{base}/cases") as reply:
        names: list[str] = json.load(reply)
    return names


def protocol_of(case: str) -> str:
    """The protocol that a case is about."""
    return "text" if case.startswith("32") and case != "32zb_tools_fake_obs" else "tools"


def demo_dataset() -> Dataset:
    """The demo, prepared in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="toolrec-cases-data-")) / "demo"
    prepare(read_demo(DemoConfig()), folder, filters=FilterConfig())
    return load_dataset(folder)


class Bench:
    """Runs cases.

    Args:
        base: the endpoint's address.
        dataset: the demo.
        num_users: users of each case.
    """

    def __init__(self, base: str, dataset: Dataset, *, num_users: int = NUM_USERS) -> None:
        self._base = base
        self._dataset = dataset
        self._num_users = num_users
        self._baselines: dict[str, list[tuple[int, ...]]] = {}

    async def run(self, case: str) -> CaseResult:
        """One case, compared with the well-behaved endpoint in the same protocol."""
        protocol = protocol_of(case)
        if protocol not in self._baselines:
            self._baselines[protocol] = (await self._run(BASELINE, protocol)).lists
        return self._judged(await self._run(case, protocol), self._baselines[protocol])

    async def _run(self, case: str, protocol: str, **settings: Any) -> CaseResult:
        started_s = time.monotonic()
        address = f"{self._base}/q/{case}/v1"
        config = LLMConfig(
            base_url=address, model="quirky", api_key_env="TOOLREC_CASES_KEY", max_attempts=3, min_wait_s=0.0, max_wait_s=0.01,
            timeout_s=3.0, total_timeout_s=12.0, **settings,
        )  # fmt: skip
        os.environ["TOOLREC_CASES_KEY"] = KEY
        try:
            await try_endpoint(config, protocol)
        except LLMError as error:
            return CaseResult(case, "refused", str(error), seconds=time.monotonic() - started_s)
        pool = self._dataset.pool
        surrogate_config = SurrogateConfig(protocol=protocol)  # type: ignore[arg-type]
        result = CaseResult(case, "")
        async with OpenAIChat(config) as llm:
            tools = {
                "retrieve": RetrievalTool(retriever=FixedOrder(pool.num_items), pool=pool, config=surrogate_config),
                "rank": RankTool(llm=llm, pool=pool, config=surrogate_config),
            }
            surrogate = Surrogate(config=surrogate_config, pool=pool, llm=llm, tools=tools)

            async def simulate(user_index: int) -> Any:
                CALLER.set(Caller(max_failed_requests=config.user_max_failed_requests))
                history = tuple(1 + (user_index * 97 + step * 31) % pool.num_items for step in range(12))
                return await surrogate.run(UserTask(user_index=user_index, user_id=f"u{user_index}", history=history))

            traces = await asyncio.gather(*(simulate(1 + number) for number in range(self._num_users)))
            result.counts = dict(llm.counts)
        for trace in traces:
            result.ends[trace.ended_by] += 1
            result.lists.append(trace.final_items if trace.ended_by in ("finish", "forced_finish") else ())
            result.detail = trace.error or result.detail
            for kind, count in trace.counts.items():
                result.counts[kind] = result.counts.get(kind, 0) + count
        result.reasks = result.counts.get("reask", 0) / self._num_users
        result.seconds = time.monotonic() - started_s
        return result

    def _judged(self, result: CaseResult, baseline: list[tuple[int, ...]]) -> CaseResult:
        if result.verdict:
            return result
        pairs = list(zip(result.lists, baseline, strict=True))
        result.same = sum(given == expected for given, expected in pairs)
        if result.same == self._num_users:
            result.verdict = "right"
        elif all(given in (expected, ()) for given, expected in pairs):
            is_final = result.detail.startswith(LLMRefusedError.__name__) and MessagesRefusedError.__name__ not in result.detail
            result.verdict = "stopped" if is_final else "failed"
        else:
            result.verdict = "expected" if result.case in DIFFERENT_LISTS else "differs"
        return result


async def run_all(bench: Bench, cases: Sequence[str]) -> list[CaseResult]:
    """All cases, a few at once."""
    await bench.run(BASELINE)
    gate = asyncio.Semaphore(CASES_AT_ONCE)

    async def one(case: str) -> CaseResult:
        async with gate:
            try:
                return await bench.run(case)
            except Exception as error:  # noqa: BLE001, a row of the table
                return CaseResult(case, "CRASH", f"{type(error).__name__}: {error}")

    return list(await asyncio.gather(*map(one, cases)))


def main() -> int:
    """Prints a row a case, and how many came to what."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    with quirky_endpoint() as base:
        known = case_names(base)
        chosen = [name for name in known if any(name.startswith(wanted) for wanted in options.cases)] or known
        results = asyncio.run(run_all(Bench(base, demo_dataset()), chosen))
    for result in results:
        print(result)
        if len(options.cases) > 0:
            print("    ", result.counts)
            print("    ", result.detail)
    print(dict(Counter(result.verdict for result in results)), f"{len(results)} cases")
    return int(any(result.verdict in ("differs", "CRASH") for result in results))


if __name__ == "__main__":
    sys.exit(main())
