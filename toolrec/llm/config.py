"""How an LLM endpoint is called: address, model, limits. Never the key itself, only the variable that holds it."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import field_validator

from toolrec.errors import ConfigError
from toolrec.util.settings import Settings, setting

OPENAI_URL = "https://api.openai.com/v1"
PLACEHOLDER_KEY = "no-key"
"""Sent where no key is known: many local endpoints ask for some key and accept any."""


class EndpointSettings(Settings):
    """How an LLM endpoint is called."""

    base_url: str | None = setting(
        None,
        "Base URL of an OpenAI-compatible endpoint, including `/v1`; default: the embedded rules.",
        flag="--llm-url",
        env="TOOLREC_LLM_URL",
        changes_results=True,
        is_shown=False,
    )
    model: str | None = setting(
        None, "Model name at that endpoint.", flag="--llm-model", env="TOOLREC_LLM_MODEL", changes_results=True
    )
    api_key_env: str = setting(
        "OPENAI_API_KEY",
        "Environment variable that holds the key; an empty value sends no key.",
        flag="--llm-key-env",
        is_shown=False,
    )
    temperature: float | None = setting(
        None, "Sampling temperature; default: the endpoint's.", flag="--temperature", changes_results=True, ge=0, le=2
    )
    seed: int | None = setting(None, "Seed sent with every LLM call.", flag="--llm-seed", changes_results=True)
    max_output_tokens: int | None = setting(
        2048,
        "Longest reply, in tokens; null leaves it to the endpoint.",
        flag="--llm-max-output-tokens",
        changes_results=True,
        ge=1,
    )
    extra: str | None = setting(
        None,
        'JSON object of further fields for every request body, as `{"reasoning_effort": "low"}`.',
        flag="--llm-extra",
        changes_results=True,
    )
    headers_env: str | None = setting(
        None,
        "Environment variable that holds further headers, one `Name: value` a line, as `api-key: …`; they are stored nowhere.",
        flag="--llm-headers-env",
        is_shown=False,
    )
    parallel_tool_calls: bool | None = setting(
        None, "Whether one reply may hold several tool calls; null leaves it to the endpoint."
    )
    timeout_s: float = setting(120.0, "Timeout of one HTTP request, in seconds.", flag="--llm-timeout-s", gt=0)
    total_timeout_s: float = setting(600.0, "Timeout of one LLM call with all its attempts and waits, in seconds.", gt=0)
    max_attempts: int = setting(6, "HTTP requests that one LLM call may take.", flag="--llm-max-attempts", ge=1)
    max_malformed: int | None = setting(
        None,
        "Of these, answers with status 200 but without a usable reply (they may cost tokens); null for no separate limit.",
        flag="--llm-max-malformed",
        ge=1,
    )
    min_wait_s: float = setting(1.0, "Upper bound of the first wait, in seconds; it doubles with each failure.", ge=0)
    max_wait_s: float = setting(60.0, "Upper bound of every wait, in seconds, unless the endpoint asks for more.", ge=0)

    @field_validator("base_url")
    @classmethod
    def _usable_url(cls, url: str | None) -> str | None:
        return None if url is None else checked_url(url)

    @field_validator("extra")
    @classmethod
    def _extra_fields(cls, text: str | None) -> str | None:
        return text if text is None else json.dumps(_extra_fields(text), sort_keys=True)

    @field_validator("api_key_env", "headers_env")
    @classmethod
    def _name_of_a_variable(cls, name: str | None) -> str | None:
        if name and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            # Not echoed: whoever gives a wrong name here may well have given the key.
            raise ConfigError("this is not the name of an environment variable", hint="name the variable that holds the key")
        return name

    def refuse_half_an_endpoint(self) -> None:
        """An address without a model, or a model without an address, is no endpoint.

        Raises:
            ConfigError: one of them is missing.
        """
        if (self.base_url is None) != (self.model is None):
            raise ConfigError("--llm-url and --llm-model go together", value=self.base_url or self.model)


class LLMSettings(EndpointSettings):
    """How the LLM endpoint of a run is called."""

    user_max_failed_requests: int = setting(
        60, "Failed HTTP requests that one user may have, in each attempt.", flag="--llm-max-failed-user", ge=1
    )
    check: bool = setting(True, "Test the endpoint with two turns of a made-up user before the run.", flag="--llm-check")


class LLMConfig(LLMSettings):
    """Settings of one LLM client: the endpoint and the model are known."""

    base_url: str = setting(OPENAI_URL, "The endpoint's address.", is_shown=False)
    model: str = setting("", "The model's name as the endpoint knows it.")
    concurrency: int = setting(64, "Connections at most, and requests in flight of a client outside a run.", ge=1)

    @field_validator("model")
    @classmethod
    def _named_model(cls, model: str) -> str:
        if not model.strip():
            raise ConfigError("no LLM model given", hint="name it with --llm-model")
        return model

    @property
    def malformed_cap(self) -> int:
        """Answers without a reply that a call may take."""
        return self.max_attempts if self.max_malformed is None else self.max_malformed

    @property
    def extra_fields(self) -> dict[str, Any]:
        """What `extra` adds to every request."""
        return {} if self.extra is None else dict(json.loads(self.extra))

    @property
    def address(self) -> str:
        """The base URL without its query."""
        return self.base_url.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The base URL's query, which goes with every request: `api-version` for Azure."""
        return dict(parse_qsl(urlsplit(self.base_url).query))

    def read_headers(self) -> dict[str, str]:
        """Further headers from the environment.

        Raises:
            ConfigError: the variable is not set, or holds no headers.
        """
        if not self.headers_env:
            return {}
        text = os.environ.get(self.headers_env, "").strip()
        if not text:
            raise ConfigError(
                f"the environment variable {self.headers_env} is not set",
                hint="--llm-headers-env names the variable that holds the headers, one `Name: value` a line",
            )
        headers = {}
        for line in text.splitlines():
            name, colon, value = line.partition(":")
            if not colon or not re.fullmatch(r"[A-Za-z0-9-]{1,100}", name.strip()) or not _is_header_value(value.strip()):
                # Not echoed: it is a secret, or part of one.
                raise ConfigError(
                    f"the headers in {self.headers_env} cannot be read", hint="give one `Name: value` a line, in ASCII"
                )
            headers[name.strip()] = value.strip()
        return headers

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


def _extra_fields(text: str) -> dict[str, Any]:
    """The object that `--llm-extra` holds.

    Raises:
        ConfigError: it is none, or sets what has a setting of its own.
    """
    try:
        fields = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise ConfigError(
            "--llm-extra is no JSON object", value=text, hint='give it like --llm-extra \'{"reasoning_effort": "low"}\''
        )
    taken = sorted(_OWN_FIELDS & fields.keys())
    if taken:
        hint = "it is set by a flag of its own, or by the run itself"
        raise ConfigError(f"--llm-extra may not set {', '.join(taken)}", value=text, hint=hint)
    return fields


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _is_header_value(value: str) -> bool:
    return bool(value) and value.isascii() and value.isprintable()


_SECRET_NAME = re.compile(r"key|token|secret|sig|password|auth", re.IGNORECASE)
_OWN_FIELDS = frozenset(
    (
        *("model", "messages", "tools", "tool_choice", "stop", "temperature", "seed", "max_tokens", "max_completion_tokens"),
        *("parallel_tool_calls", "response_format", "stream", "n", "functions", "function_call"),
    )
)
"""Fields of a request that `--llm-extra` may not set."""


def checked_url(text: str) -> str:
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
    if parts.fragment:
        raise ConfigError("the LLM address holds a fragment", value=text.split("#")[0], hint=hint)
    if any(_SECRET_NAME.search(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        hint = "give it through the environment: --llm-key-env or --llm-headers-env"
        raise ConfigError("the LLM address holds a key in its query", value=text.split("?")[0], hint=hint)
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError("the LLM address cannot be used", value=text, allowed="http://… or https://…", hint=hint)
    if any(ch.isspace() for ch in parts.geturl()):
        raise ConfigError("the LLM address holds white space", value=text, hint=hint)
    return parts._replace(path=parts.path.rstrip("/")).geturl()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
