"""Many small requests as few messages: while one batch is on its way, the next one gathers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Coalescer(Generic[Request, Answer]):
    """Sends single requests in batches; a lone request goes out at once.

    A batch leaves when none is on its way, or when it is full: under light load nothing waits for company, under heavy
    load the batches grow by themselves, and full ones go out side by side.

    Args:
        send: answers a batch, one answer a request in their order.
        max_batch: the largest batch.

    An error of `send` is raised to every request of that batch.
    """

    def __init__(self, send: Callable[[Sequence[Request]], Awaitable[Sequence[Answer]]], *, max_batch: int) -> None:
        self._send, self._max_batch = send, max_batch
        self._waiting: list[tuple[Request, asyncio.Future[Answer]]] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._is_due = False

    async def __call__(self, request: Request) -> Answer:
        """The answer to one request."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((request, answer))
        if len(self._waiting) >= self._max_batch:
            self._start()
        elif not self._under_way and not self._is_due:
            self._is_due = True
            loop.call_soon(self._start_due)  # those that ask in this turn of the event loop go together
        return await answer

    def _start_due(self) -> None:
        self._is_due = False
        if self._waiting and not self._under_way:
            self._start()

    def _start(self) -> None:
        batch, self._waiting = self._waiting, []
        task = asyncio.create_task(self._answer(batch))
        self._under_way.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._start_due()

    async def _answer(self, batch: list[tuple[Request, asyncio.Future[Answer]]]) -> None:
        try:
            [outcome] = await asyncio.gather(self._send([request for request, _ in batch]), return_exceptions=True)
            if isinstance(outcome, BaseException):
                for _, future in batch:
                    if not future.done():  # its caller may have been cancelled
                        future.set_exception(outcome)
                return
            for (_, future), answer in zip(batch, outcome, strict=True):
                if not future.done():
                    future.set_result(answer)
        finally:  # whatever became of the batch: nobody waits for ever
            for _, future in batch:
                future.cancel()
