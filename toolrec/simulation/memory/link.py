"""The driver's access to the shared memory: waits while it restarts; at the end of a run it does not wait for long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Any

from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError

from toolrec.errors import RunStoppedError, StorageError, ToolRecError
from toolrec.runs.folder import RunFolder
from toolrec.simulation.flow.watch import Answer, until_leaving
from toolrec.simulation.memory.actor import spend_in_flight

log = logging.getLogger(__name__)


class MemoryLink:
    """Calls the shared memory, without a time limit while the run goes on, and for `LEAVING_S` at its end.

    Args:
        memory: the shared memory actor.
        folder: the run folder: the journal, and the file of rounds in flight.
        over: set when the run is ending.
    """

    def __init__(self, memory: ActorHandle, folder: RunFolder, over: asyncio.Event) -> None:
        self._memory, self._folder, self._over = memory, folder, over
        self._is_silent = False

    async def begin(self, user_index: int, attempt: int) -> list[bytes]:
        """Begins a user's next attempt; returns the rounds of earlier ones, encoded.

        Raises:
            StorageError: the memory cannot read its file.
            RunStoppedError: the memory is gone for good.
        """
        rounds: list[bytes] = await self._answer(self._memory.begin.remote(user_index, attempt))
        return rounds

    async def journal_spend(self) -> None:
        """Journals what was spent since the last call. If the memory does not answer at the end of a run, its file is read.

        A resumed run may report the same entries again; the journal counts each once.

        Raises:
            StorageError: as `begin`, unless the run is ending; or the journal cannot be written.
            RunStoppedError: as `begin`, unless the run is ending.
        """
        if not self._is_silent:
            try:
                entries: list[dict[str, Any]] = await self._answer(self._memory.drain_spend.remote())
            except (TimeoutError, RayError, ToolRecError) as error:
                if not self._over.is_set():
                    raise
                self._fell_silent(error)
            else:
                await self._write(entries)
                return
        try:
            written = await asyncio.to_thread(spend_in_flight, self._folder.rounds_in_flight)
        except StorageError as error:
            log.warning("nothing that was spent since the last block is journalled: %s", error)
        else:
            await self._write(written)

    async def _write(self, entries: list[dict[str, Any]]) -> None:
        """Journals off the event loop, for a bucket may take its time; to the end even where the run is cancelled meanwhile."""
        writing = asyncio.ensure_future(asyncio.to_thread(self._folder.journal, entries))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await writing
            raise

    async def forget(self, user_indexes: Sequence[int]) -> None:
        """Drops committed users. A memory that does not answer keeps them; that costs only space."""
        if self._is_silent:
            return
        try:
            await self._answer(self._memory.forget.remote(user_indexes))
        except (TimeoutError, RayError, ToolRecError) as error:
            if not self._over.is_set():
                raise
            self._fell_silent(error)

    async def _answer(self, call: Awaitable[Answer]) -> Answer:
        try:
            return await until_leaving(call, self._over)
        except RayTaskError as error:
            cause = cause_of(error)
            raise cause if isinstance(cause, ToolRecError) else error from None
        except RayActorError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise RunStoppedError(
                f"the shared memory is gone: {lines[-1] if lines else error}", hint="--resume goes on after the last rounds"
            ) from error

    def _fell_silent(self, error: Exception) -> None:
        self._is_silent = True
        reason = str(error) if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
        log.warning(
            "the shared memory says nothing any more (%s); of what was spent since the last block, the rounds that it "
            "has written to %s are journalled, and nothing else",
            *(reason, self._folder.rounds_in_flight.name),
        )


def cause_of(error: RayTaskError) -> BaseException:
    """The exception that an actor raised, also if it came from another actor."""
    cause: BaseException = error.cause
    return cause_of(cause) if isinstance(cause, RayTaskError) else cause
