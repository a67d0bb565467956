"""A token bucket that lends: what clients hold of it counts as taken until they give it back or have spent it."""

from __future__ import annotations

BURST_S = 1.0
"""How many seconds' worth may be spent at once."""


class LeasedBucket:
    """Fills at a rate, and lends what it has to clients, by share, the longest waiting first where there is too little.

    What lies in the bucket and what is lent out are together never more than `BURST_S` seconds' worth and the largest
    single request. So in any span of w seconds all clients together begin at most
    `rate * (w + BURST_S) + largest request`, however leases are kept and spent.

    Args:
        per_minute: units a minute; None for no limit.
        now_s: the present, in seconds from any fixed point.
    """

    def __init__(self, per_minute: float | None, *, now_s: float) -> None:
        self._rate_per_s = None if per_minute is None else per_minute / 60.0
        self._last_s = now_s
        self._level = 0.0
        self._largest = 0.0
        self._lent: dict[str, float] = {}
        self._queue: dict[str, float] = {}  # clients that got nothing, oldest first, with what the first request needs

    @property
    def capacity(self) -> float:
        """The most that is in the bucket and lent out, in units."""
        return (self._rate_per_s or 0.0) * BURST_S + self._largest

    def refill(self, now_s: float) -> None:
        """Lets in what has come since the last time."""
        if self._rate_per_s is not None:
            room = self.capacity - sum(self._lent.values()) - self._level
            self._level += max(min((now_s - self._last_s) * self._rate_per_s, room), 0.0)
        self._last_s = now_s

    def exchange(self, name: str, *, returned: float, ask: float, head: float, share: float) -> float | None:
        """Takes back what a client has left and lends it anew.

        Args:
            name: the client.
            returned: what it has left; below 0 where it owes.
            ask: what it would like to spend.
            head: what it needs to begin anything at all; 0 where nothing waits.
            share: its part of all clients' demand, 0 to 1.

        Returns:
            What it may spend; None for no limit.
        """
        if self._rate_per_s is None:
            return None
        self._largest = max(self._largest, head)
        self._lent.pop(name, None)
        room = self.capacity - sum(self._lent.values()) - self._level
        self._level += min(returned, max(room, 0.0))
        reserved = 0.0
        for other, need in self._queue.items():
            if other == name:
                break
            reserved += need
        open_level = self._level - reserved
        grant = min(ask, max(head, open_level * share), open_level)
        if grant <= 0.0 or grant < head:
            if head > 0.0:
                self._queue[name] = head
            else:
                self._queue.pop(name, None)
            return 0.0
        self._queue.pop(name, None)
        self._level -= grant
        self._lent[name] = grant
        return grant

    def drop(self, name: str) -> None:
        """Forgets a client that is gone; what it was lent counts as spent."""
        self._lent.pop(name, None)
        self._queue.pop(name, None)

    def retune(self, per_minute: float | None) -> None:
        """Goes on at another rate; what is in the bucket beyond the new capacity is poured away."""
        self._rate_per_s = None if per_minute is None else per_minute / 60.0
        if self._rate_per_s is None:
            self._lent.clear()
            self._queue.clear()
            self._level = 0.0
        self._level = min(self._level, self.capacity)

    def share_per_s(self, share: float) -> float | None:
        """A client's part of the rate."""
        return None if self._rate_per_s is None else self._rate_per_s * share
