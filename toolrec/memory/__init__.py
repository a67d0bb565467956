"""The paper's memory: the pool directory that lets only real items through, and one user's marked candidates."""

from toolrec.memory.candidates import CheckedList, Memory, newest_first
from toolrec.memory.directory import Match, PoolDirectory

__all__ = ["CheckedList", "Match", "Memory", "PoolDirectory", "newest_first"]
