"""The shared memory actor: it keeps the completed rounds of every user in flight, so that a lost process loses none."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import ray

from toolrec.errors import StorageError
from toolrec.records import Round
from toolrec.runs.round_codec import decode_round, encode_round
from toolrec.runs.rows import Row, usage_rows
from toolrec.util.files import atomic_file

log = logging.getLogger(__name__)

REWRITE_BYTES = 4 * 1024**2
"""The file is rewritten without forgotten users once it is larger than this and twice what is held."""


class HeldRound(NamedTuple):
    """A completed round as it is sent and kept: `line` is the round's JSON, `spend` its journal entries.

    A round without an action (the user failed) is journalled but not kept: no attempt can continue after it.
    """

    user_index: int
    attempt: int
    number: int
    is_action: bool
    line: bytes
    spend: list[Row]


def held_round(user_index: int, attempt: int, done: Round) -> HeldRound:
    """Encodes a round of an attempt."""
    spend = _spend_entries(user_index, attempt, done)
    return HeldRound(user_index, attempt, done.number, done.call is not None, encode_round(done), spend)


class SharedMemory:
    """Keeps completed rounds by user, and refuses what an older attempt writes late.

    Rounds are all that is kept: a user's candidates follow from its rounds' observations. Rounds are written to a file
    before the call returns, and read from it when the actor restarts or the run is resumed. Without the file, a restarted
    memory fills up again: `record` returns how many rounds it holds, and the writer sends those that are missing.

    If the file cannot be used, every call raises a StorageError. (Ray gives no reason for an actor whose constructor failed.)

    Args:
        path: the file; None for no file.

    Attributes:
        spend: journal entries that `drain_spend` has not returned yet.
    """

    REFUSED = -1

    def __init__(self, path: str | None = None) -> None:
        self._attempts: dict[int, int] = {}
        self._held: dict[int, list[tuple[int, bytes]]] = {}
        self.spend: list[Row] = []
        self._unheld: list[bytes] = []
        self._path = None if path is None else Path(path)
        self._num_bytes = 0
        self._file: BinaryIO | None = None
        self._failure: StorageError | None = None
        if self._path is not None:
            try:
                with _usable(self._path):
                    self.restore(self._path)
                    self._file = self._rewritten(self._path)
            except StorageError as error:
                self._failure = error

    async def ready(self) -> bool:
        """Returns once the actor has started.

        Raises:
            StorageError: the file cannot be used.
        """
        self._refuse_without_file()
        return True

    async def begin(self, user_index: int, attempt: int) -> list[bytes]:
        """Begins an attempt; returns the rounds that earlier attempts completed, as JSON lines."""
        self._refuse_without_file()
        self._attempts[user_index] = max(attempt, self._attempts.get(user_index, 0))
        self._write([b"[%d,%d,null]\n" % (user_index, self._attempts[user_index])])
        return [line for _, line in self._held.get(user_index, ())]

    async def record(self, rounds: Sequence[HeldRound]) -> list[int]:
        """Keeps rounds of any users. A user's rounds are numbered from 1 without gaps; a round that is held is not added again.

        Returns:
            For each round, how many rounds of its user are held now: if fewer than the writer has, it must send the rest.
            `REFUSED` if a later attempt has begun.
        """
        self._refuse_without_file()
        written: list[bytes] = []
        held = [self._take(done, written) for done in rounds]
        self._write(written)
        return held

    async def forget(self, user_indexes: Sequence[int]) -> None:
        """Drops users whose traces are committed."""
        for user_index in user_indexes:
            self._drop(user_index)
        self._write([b"[%d,0,null]\n" % user_index for user_index in user_indexes])
        if self._path is None or self._file is None or self._num_bytes <= REWRITE_BYTES:
            return
        if self._num_bytes > REWRITE_BYTES + 2 * self._held_bytes():
            try:
                self._file = self._rewritten(self._path)
            except (OSError, StorageError) as error:
                self._give_up(error)

    async def drain_spend(self) -> list[Row]:
        """Returns journal entries since the last call; after a restart, those of held rounds again."""
        self._refuse_without_file()
        spend, self.spend, self._unheld = self.spend, [], []
        return spend

    async def num_users(self) -> int:
        """Users with rounds in memory."""
        return len(self._held)

    def _refuse_without_file(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def _take(self, done: HeldRound, written: list[bytes]) -> int:
        if done.attempt < self._attempts.get(done.user_index, 0):
            return self.REFUSED
        self._attempts[done.user_index] = done.attempt
        held = self._held.setdefault(done.user_index, [])
        if done.number == len(held) + 1:
            self.spend.extend(done.spend)
            written.append(b"[%d,%d,%b]\n" % (done.user_index, done.attempt, done.line))
            if not done.is_action:
                self._unheld.append(written[-1])
                return done.number
            held.append((done.attempt, done.line))
        return len(held)

    def _drop(self, user_index: int) -> None:
        self._held.pop(user_index, None)
        self._attempts.pop(user_index, None)

    def _write(self, lines: Iterable[bytes]) -> None:
        if self._file is None:
            return
        content = b"".join(lines)
        try:
            self._file.write(content)
            self._file.flush()  # what has left this process outlives it
        except OSError as error:
            self._give_up(error)
        self._num_bytes += len(content)

    def _give_up(self, error: Exception) -> None:
        # The run itself stops at its next block where the disk is full; until then the process still holds all.
        log.warning("the rounds in flight are no longer written to %s (%s)", self._path, error)
        self._file = None

    def _held_bytes(self) -> int:
        return sum(len(line) for held in self._held.values() for _, line in held)

    def restore(self, path: Path) -> None:
        """Adds the content of a file."""
        with contextlib.suppress(FileNotFoundError), path.open("rb") as handle:
            for text in handle:
                with contextlib.suppress(ValueError):  # a last line that a kill cut short
                    self._restore_line(text)

    def _restore_line(self, text: bytes) -> None:
        user_index, attempt, done = json.loads(text)
        if attempt == 0:
            self._drop(user_index)
            return
        self._attempts[user_index] = attempt
        if done is not None:
            line = text[text.index(b"{") : text.rindex(b"}") + 1]
            restored = held_round(user_index, attempt, decode_round(line))
            held = self._held.setdefault(user_index, [])
            if restored.number != len(held) + 1:  # one before it is damaged: nobody can go on after a gap
                return
            self.spend.extend(restored.spend)
            if restored.is_action:
                held.append((attempt, line))
            else:
                self._unheld.append(text)

    def _rewritten(self, path: Path) -> BinaryIO:
        """Writes the file anew, with held rounds and undrained spend only; returns it open for appending."""
        with atomic_file(path) as temporary, temporary.open("wb") as handle:
            for user_index, attempt in self._attempts.items():
                held = self._held.get(user_index, ())
                handle.writelines(b"[%d,%d,%b]\n" % (user_index, earlier, line) for earlier, line in held)
                handle.write(b"[%d,%d,null]\n" % (user_index, attempt))
            handle.writelines(self._unheld)
        if self._file is not None:
            self._file.close()
        self._num_bytes = path.stat().st_size
        return path.open("ab")


def spend_in_flight(path: Path) -> list[Row]:
    """Journal entries of the rounds in a shared memory's file.

    Raises:
        StorageError: the file cannot be read.
    """
    memory = SharedMemory()
    with _usable(path):
        memory.restore(path)
    return memory.spend


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"the rounds in flight cannot be kept ({error.strerror})",
            value=str(path),
            hint="let it be read and written, and run the same command with --resume",
        ) from error


def _spend_entries(user_index: int, attempt: int, done: Round) -> list[Row]:
    tool = done.call.tool if done.call is not None else ""
    where: Row = {"user_index": user_index, "attempt": attempt, "round": done.number, "tool": tool}
    return [{**where, **used} for used in usage_rows(done.usage)]


MemoryActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=1000)(SharedMemory)
