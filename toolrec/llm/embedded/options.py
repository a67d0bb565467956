"""Settings of the embedded endpoint. It spoils nothing unless it is asked to."""

from __future__ import annotations

from toolrec.util.settings import Settings, setting

SHARES = ("share_typos", "share_invented", "share_short", "share_malformed")


class EmbeddedOptions(Settings):
    """How the embedded endpoint departs from its plain rules."""

    latency_s: float = setting(0.0, "Seconds by which each reply is held back.", flag="--latency-s", ge=0)
    share_typos: float = setting(
        0.0, "Share of lists (finish, rank) in which one entry is misspelt.", flag="--share-typos", ge=0, le=1
    )
    share_invented: float = setting(
        0.0, "Share of lists in which one entry is an item that does not exist.", flag="--share-invented", ge=0, le=1
    )
    share_short: float = setting(0.0, "Share of lists that end half way.", flag="--share-short", ge=0, le=1)
    share_malformed: float = setting(
        0.0, "Share of replies that are no action or list at all.", flag="--share-malformed", ge=0, le=1
    )
    seed: int = setting(0, "Seed of these faults; with the messages it determines each.", flag="--seed")

    @property
    def has_faults(self) -> bool:
        """Whether any reply may be spoilt."""
        return any(getattr(self, name) > 0 for name in SHARES)


class ServedOptions(EmbeddedOptions):
    """The embedded endpoint as a server of its own."""

    host: str = setting("127.0.0.1", "Address to listen on.", flag="--host")
    port: int = setting(8399, "Port to listen on; 0 takes a free one.", flag="--port", ge=0, le=65_535)
