"""Error answers of endpoints: what was refused, and whether the request can be changed so that it is taken."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from toolrec.records import Completion, LLMToolCall

MASK = "***"
MAX_MESSAGE_CHARACTERS = 2000
"""What is kept of an endpoint's own words: they go into errors, and so into the run's folder."""
_READ_CHARACTERS = 100_000
MIN_SECRET_CHARACTERS = 8
"""Shorter keys are not looked for in replies: they may well be words."""
TOKEN_LIMITS = ("max_tokens", "max_completion_tokens")
"""Two names of one limit: endpoints know the one, the other or both."""

ADAPTABLE = (*TOKEN_LIMITS, "temperature", "stop", "seed", "parallel_tool_calls")
"""Parameters without which a request still makes sense."""

_CONTEXT = re.compile(
    r"context[ _-]?(?:length|window|size)|maximum (?:context|prompt|input)|prompt is too long|too many (?:input )?tokens"
    r"|input (?:length|tokens?|is too long)|reduce the length|longer than the model",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed|invalid|extra (?:inputs|fields)"
    r"|does not (?:accept|take)|only the default|use '?max_|not compatible|incompatible|deprecated",
    re.IGNORECASE,
)
_QUOTA_CODES = frozenset(("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance", "quota_exceeded"))
_QUOTA = re.compile(
    r"exceeded your current quota|insufficient (?:balance|credits?|funds)|credit balance is too low", re.IGNORECASE
)
_KEY = re.compile(
    r"not authenticated|unauthori[sz]ed|(?:invalid|incorrect|missing|no) (?:api[ _-]?key|auth\w{0,20} credentials)", re.IGNORECASE
)
_SECRETS = re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{6,}|\bsk-[\w-]{8,}")
_NAMED = {
    name: re.compile(
        rf"['\"`]{name}['\"`]|:\s*{name}\b|\b(?:parameter|argument|field|input|keyword)s?:?\s+{name}\b"
        rf"|\b{name}(?:\s+(?:is|was|are|parameter|not|cannot|must|does|value)\b|:)",
        re.IGNORECASE,
    )
    for name in ADAPTABLE
}


class ErrorBody:
    """An endpoint's error answer, read as well as it can be.

    Args:
        raw: the body as it came, JSON or not.
        secrets: texts to mask wherever they stand.
    """

    def __init__(self, raw: str, *, secrets: Iterable[str] = ()) -> None:
        self.code = ""
        self.param = ""
        message = ""
        try:
            data: Any = json.loads(raw)
        except (ValueError, RecursionError):
            data = None
        if isinstance(data, dict):
            error = data.get("error", data)
            if isinstance(error, dict):
                self.code = str(error.get("code") or "")[:MAX_MESSAGE_CHARACTERS]
                self.param = str(error.get("param") or "")[:MAX_MESSAGE_CHARACTERS]
                message = _text_of(error.get("message") or error.get("detail") or error.get("msg"))
            else:
                message = _text_of(error)
        # Masked before it is cut: a cut through a key would leave its beginning.
        known = tuple(secrets)
        self.message = mask(message, known)[:MAX_MESSAGE_CHARACTERS] if message else _plain(mask(raw[:_READ_CHARACTERS], known))

    @property
    def is_context_too_long(self) -> bool:
        """Whether the messages do not fit the model's context."""
        return self.code == "context_length_exceeded" or bool(_CONTEXT.search(self.message))

    @property
    def is_content_filter(self) -> bool:
        """Whether a filter refused the messages."""
        return self.code == "content_filter" or "content management policy" in self.message

    @property
    def is_quota(self) -> bool:
        """Whether the account has nothing left, which waiting does not change."""
        return self.code in _QUOTA_CODES or bool(_QUOTA.search(self.message))

    @property
    def is_about_the_key(self) -> bool:
        """Whether it says that no key, or a wrong one, came along."""
        return bool(_KEY.search(self.message))

    def refused_parameter(self, sent: Iterable[str]) -> str | None:
        """The adaptable one of the `sent` parameters that the answer refuses; the one it names first."""
        names = [name for name in ADAPTABLE if name in sent]
        if self.param:
            last = re.split(r"[.\[/]", self.param)[-1]
            return next((name for name in names if name in (self.param, last)), None)
        if not _REFUSAL.search(self.message):
            return None
        places = [(found.start(), name) for name in names if (found := _NAMED[name].search(self.message))]
        return min(places)[1] if places else None


def mask(text: str, secrets: Iterable[str]) -> str:
    """`text` without keys: the known ones, and what looks like one."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, MASK)
    return _SECRETS.sub(lambda found: (found.group(1) or "") + MASK, text)


def without_secrets(completion: Completion, secrets: Sequence[str]) -> Completion:
    """The reply without the known keys, for an endpoint that says back what it was sent; the same object where it has none."""
    held = [secret for secret in secrets if len(secret) >= MIN_SECRET_CHARACTERS]
    if not held:
        return completion
    calls = (f"{call.id}\n{call.name}\n{call.arguments}" for call in completion.tool_calls)
    extra = json.dumps([completion.extra, *(call.extra for call in completion.tool_calls)]) if has_extra(completion) else ""
    texts = (completion.text, completion.reasoning, completion.finish_reason, extra, *calls)
    if not any(secret in text for secret in held for text in texts):
        return completion

    def masked(text: str) -> str:
        for secret in held:
            text = text.replace(secret, MASK)
        return text

    return replace(
        completion,
        text=masked(completion.text),
        reasoning=masked(completion.reasoning),
        finish_reason=masked(completion.finish_reason),
        extra=json.loads(masked(json.dumps(completion.extra))),
        tool_calls=tuple(
            LLMToolCall(
                id=masked(call.id),
                name=masked(call.name),
                arguments=masked(call.arguments),
                extra=json.loads(masked(json.dumps(call.extra))),
            )
            for call in completion.tool_calls
        ),
    )


def has_extra(completion: Completion) -> bool:
    """Whether the reply has fields that we do not know."""
    return bool(completion.extra) or any(call.extra for call in completion.tool_calls)


def _text_of(value: Any) -> str:
    """A message from whatever stands in its place; FastAPI lists its complaints as `{loc, msg}`."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = []
        for entry in value[:10]:
            if isinstance(entry, dict) and "msg" in entry:
                where = entry.get("loc")
                name = where[-1] if isinstance(where, list) and where else ""
                parts.append(f"'{name}': {entry['msg']}")
            else:
                parts.append(str(entry))
        return "; ".join(parts)
    return str(value)


def _plain(raw: str, limit: int = 500) -> str:
    """A body that is no JSON error, as one short line; an HTML page's tags are left out."""
    if "<html" in raw[:1000].lower():
        raw = re.sub(r"<[^<>]{0,500}>", " ", raw[:4000])
    return " ".join(raw[: 4 * limit].split())[:limit]
