"""How an LLM endpoint is called: address, model, limits. Never the key itself, only the variable that holds it."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from toolrec.errors import ConfigError

OPENAI_URL = "https://api.openai.com/v1"
PLACEHOLDER_KEY = "no-key"
"""Sent where no key is known: many local endpoints ask for some key and accept any."""


@dataclass(frozen=True, kw_only=True)
class LLMConfig:
    """Settings of one LLM client.

    Args:
        base_url: the endpoint's address up to and including `/v1`.
        model: the model's name as the endpoint knows it.
        api_key_env: the environment variable that holds the key; empty for never sending one.
        temperature: sampling temperature; None leaves it to the endpoint.
        seed: sampling seed, where the endpoint has one; None sends none.
        max_output_tokens: the longest reply in tokens; None leaves it to the endpoint.
        parallel_tool_calls: whether one reply may hold several tool calls; None leaves it to the endpoint.
        concurrency: connections at most, and requests in flight of a client that is no member of a run.
        timeout_s: the longest one request may take, in seconds.
        total_timeout_s: the longest one call may take with all its attempts and waits, in seconds.
        max_attempts: failed requests per call at most.
        max_malformed: of them, answers with status 200 that hold no reply (they may cost tokens); None for as many.
        user_max_failed_requests: failed requests of one user over all its calls.
        min_wait_s: the first wait's upper bound in seconds; it doubles with each failure.
        max_wait_s: no wait's upper bound goes beyond this, in seconds, unless the endpoint asks for more.
    """

    base_url: str = OPENAI_URL
    model: str = ""
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float | None = None
    seed: int | None = None
    max_output_tokens: int | None = 2048
    parallel_tool_calls: bool | None = None
    concurrency: int = 64
    timeout_s: float = 120.0
    total_timeout_s: float = 600.0
    max_attempts: int = 6
    max_malformed: int | None = None
    user_max_failed_requests: int = 60
    min_wait_s: float = 1.0
    max_wait_s: float = 60.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", _checked_url(self.base_url))
        if self.api_key_env and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            # Not echoed: whoever gives a wrong name here may well have given the key.
            raise ConfigError("this is not the name of an environment variable", hint="name the variable that holds the key")
        if not self.model.strip():
            raise ConfigError("no LLM model given", hint="name it with --llm-model")
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise ConfigError("temperature is out of range", value=self.temperature, allowed="0 to 2")
        for name in ("concurrency", "max_attempts", "user_max_failed_requests"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1", value=getattr(self, name))
        for name in ("max_output_tokens", "max_malformed"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1", value=getattr(self, name))
        for name in ("timeout_s", "total_timeout_s"):
            _check_seconds(name, getattr(self, name), zero=False)
        for name in ("min_wait_s", "max_wait_s"):
            _check_seconds(name, getattr(self, name), zero=True)

    @property
    def malformed_cap(self) -> int:
        """Answers without a reply that a call may take."""
        return self.max_attempts if self.max_malformed is None else self.max_malformed

    @property
    def is_local(self) -> bool:
        """Whether the address is on this machine's loopback; proxies of the environment are not used for it."""
        return _is_loopback(urlsplit(self.base_url).hostname or "")

    @property
    def is_openai(self) -> bool:
        """Whether the address is OpenAI's own."""
        return urlsplit(self.base_url).hostname == urlsplit(OPENAI_URL).hostname

    @property
    def has_key(self) -> bool:
        """Whether the environment holds a key for this endpoint."""
        return bool(self.api_key_env and os.environ.get(self.api_key_env, "").strip())

    def read_key(self) -> str:
        """The key from the environment, or a placeholder where an own endpoint goes without one.

        Raises:
            ConfigError: the address is OpenAI's and the variable is not set, or the key cannot be a header's value.
        """
        if not self.has_key:
            if self.is_openai:
                raise ConfigError(
                    "no key for the LLM endpoint",
                    value=self.base_url,
                    hint=f"set the environment variable {self.api_key_env or 'OPENAI_API_KEY'}",
                )
            return PLACEHOLDER_KEY
        key = os.environ[self.api_key_env].strip()
        if not key.isascii() or not key.isprintable():
            raise ConfigError(f"the key in {self.api_key_env} has characters that no key has", hint="copy it again")
        return key


def _checked_url(text: str) -> str:
    """The address without a slash at its end.

    Raises:
        ConfigError: not an http address, or it carries a secret or a query (it ends in manifests and messages).
    """
    hint = "give it like http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise ConfigError("the LLM address cannot be read", hint=hint) from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("the LLM address holds a user name or password", hint="give the key through the environment")
    if parts.query or parts.fragment:
        raise ConfigError("the LLM address holds a query", value=text.split("?")[0], hint=hint)
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError("the LLM address cannot be used", value=text, allowed="http://… or https://…", hint=hint)
    if any(ch.isspace() for ch in parts.geturl()):
        raise ConfigError("the LLM address holds white space", value=text, hint=hint)
    return parts.geturl().rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_seconds(name: str, value: float, *, zero: bool) -> None:
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ConfigError(f"{name} must be a {'' if zero else 'positive '}number of seconds", value=value)
