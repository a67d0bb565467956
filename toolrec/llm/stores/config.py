"""Which stores a run's calls go through on their way to the endpoint, if they come there at all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

from pydantic import field_validator, model_validator

from toolrec.errors import ConfigError
from toolrec.llm.base import LLM
from toolrec.llm.config import LLMConfig
from toolrec.llm.stores.cache import ReplyCache
from toolrec.llm.stores.recording import Recorder, Recording
from toolrec.llm.stores.storing import StoringLLM
from toolrec.util.settings import Settings, setting


class StoreSettings(Settings):
    """Stores of replies, all off by default."""

    cache: Path | None = setting(
        None,
        "Folder of the response cache, on each node. The same call gets the same reply, at any temperature.",
        flag="--cache",
    )
    max_age_s: float | None = setting(
        None,
        "Maximum age of a cached reply, in seconds or as 90s, 30m, 12h, 7d.",
        flag="--cache-max-age",
        gt=0,
    )
    record: Path | None = setting(
        None, "Folder to store every reply in, for --replay; visible to every node.", flag="--record", is_output=True
    )
    replay: Path | None = setting(
        None, "Recording to answer from, without endpoint or key; a call that it does not contain is an error.", flag="--replay"
    )

    @field_validator("max_age_s", mode="before")
    @classmethod
    def _duration(cls, age: Any) -> Any:
        return _seconds(age) if isinstance(age, str) else age

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.replay is not None and (self.cache is not None or self.record is not None):
            raise ConfigError("--replay goes with neither --cache nor --record")
        if self.max_age_s is not None and self.cache is None:
            raise ConfigError("--cache-max-age needs --cache")
        return self

    def facts(self) -> dict[str, Any]:
        """What manifests and summaries say of it; no paths."""
        facts: dict[str, Any] = {}
        if self.cache is not None:
            facts["cache"] = "any age" if self.max_age_s is None else f"up to {self.max_age_s:g} s old"
        if self.record is not None:
            facts["recorded"] = True
        return facts


def _seconds(text: str) -> float:
    """A duration as people write it: `90s`, `30m`, `12h`, `7d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise ConfigError("not a duration", value=text, allowed="a number with s, m, h or d, as in 7d")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


class ReplyStores(StoreSettings):
    """The stores of a run's calls; every path is absolute."""

    endpoint: str = setting("", "Stands for the endpoint in the cache's keys.")

    def wrap(self, config: LLMConfig, client: LLM | None) -> LLM:
        """The LLM that goes through the stores to `client`, which a replay has no use for.

        Raises:
            ConfigError, RecordingError, StorageError: a store cannot be used.
        """
        if self.replay is not None:
            return StoringLLM(Recording(self.replay), None, config)
        assert client is not None, "only a replay does without an endpoint"
        llm = client
        if self.cache is not None:
            store = ReplyCache(self.cache, endpoint=self.endpoint, max_age_s=self.max_age_s)
            llm = StoringLLM(store, llm, config)
        return llm if self.record is None else StoringLLM(Recorder(self.record), llm, config)
