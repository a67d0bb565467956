"""The main job as a user runs it, measured from outside: users a second, CPU, memory of all its processes.

    python benchmarks/main_job.py data/ml-100k --recommenders recommenders/ml-100k [flags of `toolrec evaluate`]

Memory is the sum of PSS over the command's process tree (shared pages counted once), sampled every second; CPU is what
the tree's processes used. Users a second are the run's own figure, from the first user's start to the last one's end.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from toolrec.capacity.processes import Watched

SAMPLE_S = 1.0


def main() -> int:
    run = Path(tempfile.mkdtemp(prefix="toolrec-bench-")) / "run"
    command = [sys.executable, "-m", "toolrec", "evaluate", *sys.argv[1:], "--run", str(run)]
    start_s = time.monotonic()
    process = subprocess.Popen(command)
    watched = Watched(process.pid)
    while process.poll() is None:
        watched.sample()
        time.sleep(SAMPLE_S)
    peak_bytes, cpu_s = watched.peak_bytes, watched.cpu_s()
    wall_s = time.monotonic() - start_s
    if process.returncode != 0:
        return process.returncode
    summary = json.loads((run / "summary.json").read_text())
    behaviour = summary["behaviour"]
    users = summary["counts"]["users"]
    print(f"\n{' '.join(sys.argv[1:])}")
    print(f"  {summary['users_per_s']:.1f} users/s from the first user's start to the last one's end ({users} users)")
    print(f"  {behaviour['llm_calls']['mean']:.2f} LLM calls, {behaviour['tool_calls']['mean']:.2f} tool calls a user")
    print(f"  {peak_bytes / 1024**3:.2f} GiB peak memory (sum of PSS)")
    print(f"  {1000 * sum(cpu_s.values()) / users:.0f} ms CPU a user, all processes and their start included")
    print(f"  {wall_s:.0f} s for the whole command")
    print("  CPU seconds by process, start-up included:")
    for name, seconds in sorted(cpu_s.items(), key=lambda entry: -entry[1])[:12]:
        print(f"    {seconds:7.1f}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
