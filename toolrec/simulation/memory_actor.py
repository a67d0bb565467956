"""The shared memory: for every user in flight, the rounds that are done, so that a lost actor loses none of them."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import ray

from toolrec.errors import StorageError
from toolrec.files import atomic_file
from toolrec.records import Round
from toolrec.simulation.round_codec import decode_round, encode_round
from toolrec.simulation.rows import Row, usage_rows

log = logging.getLogger(__name__)

REWRITE_BYTES = 64 * 1024**2
"""The file is written anew without what is forgotten when it has grown by this, or to twice what is held if that is more."""


class HeldRound(NamedTuple):
    """One round as it travels and is held: `line` is the round's JSON, `spend` what it cost, for the journal.

    A round that came to nothing (no action; the endpoint failed) has spent, but nobody can go on after it.
    """

    user_index: int
    attempt: int
    number: int
    is_action: bool
    line: bytes
    spend: list[Row]


def held_round(user_index: int, attempt: int, done: Round) -> HeldRound:
    """A round of an attempt in the form in which it travels."""
    spend = _spend_entries(user_index, attempt, done)
    return HeldRound(user_index, attempt, done.number, done.call is not None, encode_round(done), spend)


class SharedMemory:
    """Completed rounds by user, guarded by the attempt: what an older attempt writes late is refused.

    A user's marked candidates are what its rounds' observations brought, so the rounds are all that is kept. What comes
    in is written to a file before it is answered, and read from there when the actor starts again or the run is
    resumed. Where the file is out of reach, a fresh memory fills up again by itself: `record` says how many rounds it
    holds, and the writer sends what is missing.

    An actor that fails while it is made is a dead one, and nobody learns why: where the file cannot be used, every call
    raises the StorageError that says so.

    Args:
        path: the file; None keeps nothing beyond the process.

    Attributes:
        spend: what was spent and is not yet drained.
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
        """Answers once the actor is up.

        Raises:
            StorageError: the file cannot be used.
        """
        self._refuse_without_file()
        return True

    async def begin(self, user_index: int, attempt: int) -> list[bytes]:
        """Opens an attempt and gives the rounds that earlier ones completed, as JSON lines."""
        self._refuse_without_file()
        self._attempts[user_index] = max(attempt, self._attempts.get(user_index, 0))
        self._write([b"[%d,%d,null]\n" % (user_index, self._attempts[user_index])])
        return [line for _, line in self._held.get(user_index, ())]

    async def record(self, rounds: Sequence[HeldRound]) -> list[int]:
        """Takes rounds of any users, each user's numbered from 1 without gaps; a round already held is not taken twice.

        Returns:
            For each round how many of its user are held now; fewer than the writer has means that it must send from
            there on. `REFUSED` where a later attempt has begun.
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
        if self._path is not None and self._file is not None and self._num_bytes > REWRITE_BYTES + 2 * self._held_bytes():
            try:
                self._file = self._rewritten(self._path)
            except (OSError, StorageError) as error:
                self._give_up(error)

    async def drain_spend(self) -> list[Row]:
        """What was spent since the last call, for the driver's journal; after a restart, what is held once more."""
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
        """Takes in what a file holds."""
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
        """The file with what is held, or was spent and not told yet, and nothing else; open for more."""
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
    """What the rounds in a shared memory's file have spent, for the journal.

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
