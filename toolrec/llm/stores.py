"""Which stores a run's calls go through on their way to the endpoint, if they come there at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolrec.errors import ConfigError
from toolrec.llm.base import LLM
from toolrec.llm.cache import ReplyCache
from toolrec.llm.config import LLMConfig
from toolrec.llm.recording import Recorder, Recording
from toolrec.llm.stored import StoringLLM


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyStores:
    """Stores of replies, all off by default.

    Args:
        endpoint: stands for the endpoint in the cache's keys.
        cache: the response cache's folder on each node.
        max_age_s: how old its replies may be, in seconds; None for any age.
        record: the folder of the recording to write; every node sees it.
        replay: the folder of the recording to answer from, likewise; then there is no endpoint.

    Raises:
        ConfigError: a replay beside another store.
    """

    endpoint: str = ""
    cache: str | None = None
    max_age_s: float | None = None
    record: str | None = None
    replay: str | None = None

    def __post_init__(self) -> None:
        if self.replay is not None and (self.cache is not None or self.record is not None):
            raise ConfigError("--replay goes with neither --cache nor --record")
        if self.max_age_s is not None and self.cache is None:
            raise ConfigError("--cache-max-age needs --cache")
        if self.max_age_s is not None and not self.max_age_s > 0:
            raise ConfigError("the age of cached replies must be above 0", value=self.max_age_s)

    def wrap(self, config: LLMConfig, client: LLM | None) -> LLM:
        """The LLM that goes through the stores to `client`, which a replay has no use for.

        Raises:
            ConfigError, RecordingError, StorageError: a store cannot be used.
        """
        if self.replay is not None:
            return StoringLLM(Recording(Path(self.replay)), None, config)
        assert client is not None, "only a replay does without an endpoint"
        llm = client
        if self.cache is not None:
            store = ReplyCache(Path(self.cache), endpoint=self.endpoint, max_age_s=self.max_age_s)
            llm = StoringLLM(store, llm, config)
        return llm if self.record is None else StoringLLM(Recorder(Path(self.record)), llm, config)

    def as_json(self) -> dict[str, Any]:
        """What manifests and summaries say of it; no paths."""
        facts: dict[str, Any] = {}
        if self.cache is not None:
            facts["cache"] = "any age" if self.max_age_s is None else f"up to {self.max_age_s:g} s old"
        if self.record is not None:
            facts["recorded"] = True
        return facts
