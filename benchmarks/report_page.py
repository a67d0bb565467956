"""How large the page over a run is, and how long a browser takes to show it.

    python benchmarks/report_page.py DATASET --out /tmp/report-page

Writes a run folder in the real format over all users of a data set folder, with synthetic surrogates (five rounds a user,
thoughts of forty words, three tools, a ranking), writes its page, and opens it in headless Chromium. `--run RUN` takes a
run that is there instead. The browser is driven by Playwright (`pip install playwright`), which is no dependency; without
it only the size is measured. Memory is what Chromium says of the tab's JavaScript heap, and the resident memory of its
process. `overview_cpu_s` is the processor time of the tab until the overview stands: on a busy machine, seconds say little.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from toolrec.data import Dataset, load_dataset
from toolrec.evaluation import FinishedRun, evaluate_run
from toolrec.evaluation.behaviour import ROUND_COLUMNS
from toolrec.evaluation.summary import BACKBONE
from toolrec.recommenders import Popularity
from toolrec.records import Candidate, Observation, RankedItem, Round, ToolCall, Trace, Usage
from toolrec.report import write_report
from toolrec.runs.folder import SCHEMA_VERSION, RunFolder, read_rounds, read_users
from toolrec.runs.rows import trace_rows

BLOCK_USERS = 200
TEXT = (
    "user history shows strong preference recent dramas comedies older thrillers rating genre release year director mood "
    "films watched before likely enjoys similar candidates retrieve rank narrow list first next compare look again"
)
WORDS = np.array(TEXT.split())


def synthetic_traces(dataset: Dataset, *, seed: int) -> Iterator[Trace]:
    """Five rounds a user: two or three retrievals, a ranking, a finish. The target is on a list in about a third of the cases."""
    random = np.random.default_rng(seed)
    for user in range(1, dataset.num_users + 1):
        yield _trace(dataset, user, random)


def _trace(dataset: Dataset, user: int, random: np.random.Generator) -> Trace:
    target, seen, candidates, rounds = dataset.target(user, "test"), [], [], []
    opening = tuple({"role": role, "content": "x" * 3000} for role in ("system", "user"))
    for number, attribute in enumerate((None, *list(dataset.pool.attributes)[:2]), start=1):
        items = random.choice(dataset.num_items, size=20, replace=False) + 1
        if random.random() < 0.12:
            items[random.integers(20)] = target
        seen += [int(item) for item in items]
        rounds.append(_round(number, ToolCall(name="retrieve", attribute=attribute, k=20), seen[-20:], candidates, random))
    ranked = [int(item) for item in random.permutation(list(dict.fromkeys(seen)))[:20]]
    rounds.append(_round(4, ToolCall(name="rank", attribute="genre", k=20), ranked, candidates, random))
    final = tuple(ranked[:10])
    rounds.append(_round(5, ToolCall(name="finish", items=tuple(map(str, final))), [], candidates, random))
    is_failed = random.random() < 0.01
    return Trace(
        user_index=user,
        user_id=dataset.user_ids[user],
        attempt=1,
        opening=opening,
        rounds=tuple(rounds),
        final_items=() if is_failed else final,
        completed_items=() if is_failed else final,
        candidates=tuple(candidates),
        ended_by="llm_failure" if is_failed else "finish",
        error="the endpoint did not answer" if is_failed else None,
        failure_kind="unavailable" if is_failed else None,
        usage={"decide": Usage(num_calls=5, num_attempts=5, prompt_tokens=9000, completion_tokens=400)},
        counts={},
        started_s=float(user),
        ended_s=float(user + 20),
    )


def _round(number: int, call: ToolCall, items: list[int], candidates: list[Candidate], random: np.random.Generator) -> Round:
    thought = " ".join(random.choice(WORDS, size=40)) + "."
    listed = tuple(RankedItem(item_index=item, score=1 / place) for place, item in enumerate(items, start=1))
    candidates += [
        Candidate(item_index=item, mark=call.mark, round=number, position=place, score=1 / place)
        for place, item in enumerate(items, start=1)
    ]
    text = "\n".join(f"<i{item}> a title of an item | genre: Drama, Comedy | release_year: 1995" for item in items)
    return Round(
        number=number,
        thought=thought,
        call=call,
        observation=Observation(text=text, items=listed, mark=call.mark) if items else None,
        messages=({"role": "assistant", "content": thought}, {"role": "user", "content": text}),
        usage={"decide": Usage(num_calls=1, num_attempts=1, prompt_tokens=1800, completion_tokens=80)},
        counts={"reask": 1} if random.random() < 0.03 else {},
        duration_s=4.0,
    )


def write_run(dataset: Dataset, folder: Path, *, seed: int = 0) -> None:
    """A complete run folder of synthetic surrogates."""
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "resume_key": "synthetic",
        "settings": {
            "dataset_checksum": dataset.checksum,
            "split": "test",
            "users": None,
            "seed": seed,
            "llm.model": "synthetic",
            "surrogate.mask_seen": True,
            "surrogate.rounds": 5,
            "surrogate.list_length": 10,
            "surrogate.prompt_history_length": 20,
        },
        "created": "2026-01-01T00:00:00Z",
        "command": ["benchmarks/report_page.py"],
        "dataset": {"path": str(dataset.path), "manifest": dataset.manifest},
        "versions": {},
    }
    run = RunFolder.create(folder, manifest)
    user_rows, round_rows = [], []
    for trace in synthetic_traces(dataset, seed=seed):
        user, rounds = trace_rows(trace)
        user_rows.append(user)
        round_rows += rounds
        if len(user_rows) == BLOCK_USERS or trace.user_index == dataset.num_users:
            run.commit(user_rows, round_rows)
            user_rows, round_rows = [], []
    run.close()
    counts = np.bincount(dataset.items, minlength=dataset.num_items + 1).astype(float)
    evaluate_run(
        FinishedRun(
            users=read_users(folder),
            rounds=read_rounds(folder, columns=ROUND_COLUMNS),
            protocol={"split": "test", "model": "synthetic", "users": None, "seed": seed},
            notes=("synthetic surrogates: no figure of this run means anything",),
        ),
        dataset=dataset,
        recommenders={name: Popularity(counts, name=name) for name in (BACKBONE, "popularity")},
        folder=folder,
    )


def measure_in_browser(page_path: Path, *, browser: str) -> dict[str, float]:
    """Seconds to the overview, to the table of users, to a filtered list, a trace and a search, and the memory of the tab."""
    import psutil
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--enable-precise-memory-info"]
    url = page_path.resolve().as_uri()
    figures: dict[str, float] = {}
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=flags)
        page = opened.new_page()
        page.set_default_timeout(120_000)
        rows, status = ".users tbody tr", "[role=status]"

        def timed(name: str, act: Callable[[], object], shows: str) -> None:
            start = time.perf_counter()
            act()
            page.wait_for_selector(shows)
            figures[f"{name}_s"] = round(time.perf_counter() - start, 3)

        def tab() -> psutil.Process:
            """The renderer that did most: the page's."""
            found = [p for p in psutil.Process().children(recursive=True) if "--type=renderer" in " ".join(p.cmdline())]
            return max(found, key=lambda process: sum(process.cpu_times()[:2]))

        timed("overview", lambda: page.goto(url, wait_until="commit"), "#table-figures tbody tr")
        figures["overview_cpu_s"] = round(sum(tab().cpu_times()[:2]), 3)
        page.goto("about:blank")
        timed("table_of_users", lambda: page.goto(f"{url}#/run/0/users", wait_until="commit"), rows)
        page.wait_for_load_state("load")
        num_users = page.inner_text(status).split(" of ")[1]
        changed = f"{status}:not(:text('{num_users.split()[0]} of {num_users}'))"
        timed("filtered_list", lambda: page.select_option("select[name='vs.backbone']", "lost"), changed)
        timed("trace", lambda: page.click(f"{rows} a"), ".trace .round")
        page.goto(f"{url}#/run/0/users")
        page.wait_for_selector(rows)
        timed("search_all", lambda: page.fill("#search", "zzzz"), f"{status}:text-is('0 of {num_users}')")
        figures["js_heap_mb"] = round(page.evaluate("performance.memory.usedJSHeapSize") / 1e6, 1)
        figures["tab_resident_mb"] = round(tab().memory_info().rss / 1e6, 1)
        opened.close()
    return figures


def main() -> None:
    """Writes, measures, prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="data set folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the synthetic run and the page")
    parser.add_argument("--run", type=Path, help="a run that is there, instead of a synthetic one")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    dataset = load_dataset(arguments.dataset)
    run = arguments.run or arguments.out / "run"
    if not run.exists():
        write_run(dataset, run)
    page = arguments.out / "report.html"
    start = time.perf_counter()
    write_report([run], page, dataset=dataset)
    users, rounds = read_users(run), read_rounds(run, columns=("user_index", "round"))
    figures: dict[str, float] = {
        "users": len(users),
        "rounds": int((rounds["round"] > 0).sum()),
        "write_s": round(time.perf_counter() - start, 1),
        "file_mb": round(page.stat().st_size / 1e6, 2),
    }
    try:
        figures |= measure_in_browser(page, browser=arguments.browser)
    except ImportError:
        print("without Playwright only the size is measured")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
