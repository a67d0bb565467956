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
    print(f"  {peak_bytes / 1024**3:.2f} GiB peak memory (sum of PSS)")
    print(f"  {1000 * sum(cpu_s.values()) / users:.0f} ms CPU a user, all processes and their start included")
    print(f"  {wall_s:.0f} s for the whole command")
    print("  CPU seconds by process, start-up included:")
    for name, seconds in sorted(cpu_s.items(), key=lambda entry: -entry[1])[:12]:
        print(f"    {seconds:7.1f}  {name}")
    return 0


def watch(root: psutil.Process, process: subprocess.Popen) -> tuple[int, dict[str, float]]:
    """Peak sum of PSS, and CPU seconds by process name, of the process tree until it ends."""
    peak_bytes, cpu_s, names = 0, {}, {}
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
                cpu_s[member.pid] = times.user + times.system
                names[member.pid] = readable(member.cmdline(), names.get(member.pid, ""))
            except psutil.Error:
                continue
        peak_bytes = max(peak_bytes, total)
        time.sleep(SAMPLE_S)
    process.wait()
    by_name: dict[str, float] = {}
    for pid, seconds in cpu_s.items():
        by_name[names[pid]] = by_name.get(names[pid], 0.0) + seconds
    return peak_bytes, by_name


def readable(command: list[str], known: str) -> str:
    """A process's name: Ray's title of a worker without its method, or the program."""
    first = command[0] if command else known
    if first.startswith("ray::ServeReplica"):
        return "ray::ServeReplica:" + first.split(":")[4].split(".")[0]
    if first.startswith("ray::"):
        return first.split(".")[0]
    return Path(first).name if len(command) < 3 or command[1] != "-m" else f"{Path(first).name} -m {command[2]}"


if __name__ == "__main__":
    sys.exit(main())
