"""Many small requests as few messages: while one batch is on its way, the next one gathers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")

HOLD_S = 1.0


def at_once() -> float:
    """Nobody waits for company."""
    return 0.0


class Coalescer(Generic[Request, Answer]):
    """Sends single requests in batches; a lone request goes out at once.

    A batch leaves when none is on its way and its first request has waited for `gather_s`, or when it is full: under light
    load nothing waits for company, under heavy load the batches grow by themselves, and full ones go out side by side. One
    that is not answered within `hold_s` holds nobody back any more.

    Args:
        send: answers a batch, one answer a request in their order; asked a second time it gives the same answers.
        max_batch: the largest batch.
        hold_s: seconds that a batch under way keeps later requests together at most.
        gather_s: gives the seconds that a request may wait for company; asked anew for each batch.

    A batch that fails is sent again in single requests, so that one that cannot be answered fails alone.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Request]], Awaitable[Sequence[Answer]]],
        *,
        max_batch: int,
        hold_s: float = HOLD_S,
        gather_s: Callable[[], float] = at_once,
    ) -> None:
        self._send, self._max_batch, self._hold_s, self._gather_s = send, max_batch, hold_s, gather_s
        self._waiting: list[tuple[Request, asyncio.Future[Answer]]] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()
        self._oldest_s = 0.0
        self._is_due = False

    async def __call__(self, request: Request) -> Answer:
        """The answer to one request."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        if not self._waiting:
            self._oldest_s = loop.time()
        self._waiting.append((request, answer))
        if len(self._waiting) >= self._max_batch:
            self._start()
        else:
            self._plan()
        return await answer

    def _plan(self) -> None:
        """Sees to it that those who wait leave when they are due."""
        if not self._waiting or self._under_way or self._is_due:
            return
        loop = asyncio.get_running_loop()
        self._is_due = True
        wait_s = self._oldest_s + self._gather_s() - loop.time()
        if wait_s > 0:
            loop.call_later(wait_s, self._start_due)
        else:
            loop.call_soon(self._start_due)  # those that ask in this turn of the event loop go together

    def _start_due(self) -> None:
        self._is_due = False
        if self._waiting and not self._under_way:
            self._start()

    def _start(self) -> None:
        batch, self._waiting = self._waiting, []
        task = asyncio.create_task(self._answer(batch))
        self._under_way.add(task)
        timer = asyncio.get_running_loop().call_later(self._hold_s, self._is_late, task)
        task.add_done_callback(lambda done: self._done(done, timer))

    def _is_late(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._late.add(task)  # a task that nobody holds may be collected
        self._plan()

    def _done(self, task: asyncio.Task[None], timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._under_way.discard(task)
        self._late.discard(task)
        self._plan()

    async def _answer(self, batch: list[tuple[Request, asyncio.Future[Answer]]]) -> None:
        try:
            outcomes = await self._outcomes([request for request, _ in batch])
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if future.done():  # its caller was cancelled
                    continue
                if isinstance(outcome, BaseException):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
        finally:  # whatever became of the batch: nobody waits for ever
            for _, future in batch:
                future.cancel()

    async def _outcomes(self, requests: Sequence[Request]) -> Sequence[Answer | BaseException]:
        [together] = await asyncio.gather(self._send(requests), return_exceptions=True)
        if not isinstance(together, BaseException):
            return together
        if len(requests) == 1:
            return [together]
        alone = await asyncio.gather(*(self._send([request]) for request in requests), return_exceptions=True)
        return [answers if isinstance(answers, BaseException) else answers[0] for answers in alone]
