"""What endpoints say of their rate limits beside an answer."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime

_KINDS = ("requests", "tokens", "input-tokens", "output-tokens")
_PAIRS = (
    *((f"x-ratelimit-remaining-{kind}", f"x-ratelimit-reset-{kind}") for kind in _KINDS),
    *((f"anthropic-ratelimit-{kind}-remaining", f"anthropic-ratelimit-{kind}-reset") for kind in _KINDS),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("ratelimit-remaining", "ratelimit-reset"),
)
_SPAN = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_MAX_S = 1e7


def read_exhausted_s(headers: Mapping[str, str]) -> float:
    """Seconds until the endpoint takes requests again, where it says that nothing remains; 0 where it says no such thing.

    Source: OpenAI's `x-ratelimit-remaining-requests` and `x-ratelimit-reset-requests: 6m0s` (likewise for tokens),
    Anthropic's names, and the plain ones of others. Seconds, spans, dates and seconds since the epoch are understood.
    """
    longest_s = 0.0
    for remaining, reset in _PAIRS:
        left = headers.get(remaining)
        if left is not None and left.strip() in ("0", "0.0", "-1"):
            longest_s = max(longest_s, read_span_s(headers.get(reset) or ""))
    return longest_s


def read_span_s(text: str) -> float:
    """Seconds of `1.5`, `6m0s`, `120ms`, a date in ISO form, or seconds since the epoch; 0 where it is none of them."""
    text = text.strip()
    try:
        value = float(text)
    except ValueError:
        value = _span_s(text)
    else:
        if value > _MAX_S:
            value -= time.time()
    return value if 0 <= value < _MAX_S else 0.0


def _span_s(text: str) -> float:
    found = _SPAN.fullmatch(text)
    if found and any(found.groups()):
        hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
        return 3600 * hours + 60 * minutes + seconds + milliseconds / 1000
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()
