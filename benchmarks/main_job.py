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

import psutil

SAMPLE_S = 1.0


def main() -> int:
    run = Path(tempfile.mkdtemp(prefix="toolrec-bench-")) / "run"
    command = [sys.executable, "-m", "toolrec", "evaluate", *sys.argv[1:], "--run", str(run)]
    start_s = time.monotonic()
    process = subprocess.Popen(command)
    peak_bytes, cpu_s = watch(psutil.Process(process.pid), process)
    wall_s = time.monotonic() - start_s
    if process.returncode != 0:
        return process.returncode
    summary = json.loads((run / "summary.json").read_text())
    behaviour = summary["behaviour"]
    users = summary["counts"]["users"]
    print(f"\n{' '.join(sys.argv[1:])}")
    print(f"  {summary['users_per_s']:.1f} users/s from the first user's start to the last one's end ({users} users)")
    print(f"  {behaviour['llm_calls']['mean']:.2f} LLM calls, {behaviour['tool_calls']['mean']:.2f} tool calls a user")
    print(f"  {peak_bytes / 1024**3:.2f} GiB peak memory (sum of PSS), {1000 * cpu_s / users:.0f} ms CPU a user (all included)")
    print(f"  {wall_s:.0f} s for the whole command")
    return 0


def watch(root: psutil.Process, process: subprocess.Popen) -> tuple[int, float]:
    """Peak sum of PSS and CPU seconds of the process tree until it ends."""
    peak_bytes, cpu = 0, {}
    while process.poll() is None:
        total = 0
        try:
            tree = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for member in tree:
            try:
                total += member.memory_full_info().pss
                times = member.cpu_times()
                cpu[member.pid] = times.user + times.system
            except psutil.Error:
                continue
        peak_bytes = max(peak_bytes, total)
        time.sleep(SAMPLE_S)
    process.wait()
    return peak_bytes, sum(cpu.values())


if __name__ == "__main__":
    sys.exit(main())
