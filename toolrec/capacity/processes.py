"""What a command's processes use, watched from outside: CPU by process name, peak memory as the sum of PSS."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil


class Watched:
    """CPU and memory of a process and all its descendants, sampled from outside.

    Args:
        pid: the process.
        memory_every: memory, which is dear to read, is taken with one sample of so many.
    """

    def __init__(self, pid: int, *, memory_every: int = 1) -> None:
        self._root = psutil.Process(pid)
        self._memory_every = memory_every
        self._known: dict[int, psutil.Process] = {}
        self._names: dict[int, str] = {}
        self._samples: list[tuple[float, dict[int, float]]] = []
        self._bytes: dict[int, int] = {}
        self.peak_bytes = 0

    def sample(self) -> None:
        """Takes one sample."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in [self._root, *self._root.children(recursive=True)]:
                self._known.setdefault(child.pid, child)
        cpu_s: dict[int, float] = {}
        total = 0
        reads_memory = len(self._samples) % self._memory_every == 0
        for pid, process in self._known.items():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                cpu_s[pid] = times.user + times.system
                if reads_memory:
                    size = int(process.memory_full_info().pss)
                    total += size
                    self._bytes[pid] = max(size, self._bytes.get(pid, 0))
                    self._names[pid] = readable(process.cmdline()) or self._names.get(pid, "")
        self.peak_bytes = max(self.peak_bytes, total)
        self._samples.append((time.time(), cpu_s))

    def cpu_between(self, start_s: float, end_s: float) -> dict[str, float]:
        """CPU seconds by process name between two moments, read between samples in a straight line."""
        by_name: dict[str, float] = {}
        for pid in self._known:
            spent = self._at(pid, end_s) - self._at(pid, start_s)
            name = self._names.get(pid, "?")
            by_name[name] = by_name.get(name, 0.0) + spent
        return by_name

    def peak_bytes_by_name(self) -> dict[str, list[int]]:
        """The peak memory (PSS) of each process, by process name."""
        by_name: dict[str, list[int]] = {}
        for pid, size in self._bytes.items():
            by_name.setdefault(self._names.get(pid, "?"), []).append(size)
        return by_name

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds by process name, since each process began."""
        by_name: dict[str, float] = {}
        for pid, seconds in {pid: seconds for _, cpu_s in self._samples for pid, seconds in cpu_s.items()}.items():
            name = self._names.get(pid, "?")
            by_name[name] = by_name.get(name, 0.0) + seconds
        return by_name

    def _at(self, pid: int, moment_s: float) -> float:
        before = (self._samples[0][0], 0.0)
        for when_s, cpu_s in self._samples:
            if pid not in cpu_s:
                continue
            if when_s >= moment_s:
                span_s = when_s - before[0]
                return before[1] + (cpu_s[pid] - before[1]) * ((moment_s - before[0]) / span_s if span_s else 1.0)
            before = (when_s, cpu_s[pid])
        return before[1]


def readable(command: list[str]) -> str:
    """A process's name: Ray's title of a worker without its method, or the program."""
    first = command[0] if command else ""
    if first.startswith("ray::ServeReplica"):
        return "ray::ServeReplica:" + first.split(":")[4].split(".")[0]
    if first.startswith("ray::"):
        return first.split(".")[0]
    if any("log_monitor" in part for part in command):
        return "log_monitor"
    name = Path(first).name
    return f"{name} -m {command[2]}" if len(command) > 2 and command[1] == "-m" else name
