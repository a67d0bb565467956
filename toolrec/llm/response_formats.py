"""Structured outputs: the schema as asked for, and the simpler forms for endpoints that refuse it.

Level 0 is the schema with its bounds and lists of ids, level 1 the same without them, level 2 any JSON object, and beyond
that nothing is sent: the prompt alone asks for JSON.
"""

from __future__ import annotations

import re
from typing import Any

from toolrec.llm.refusals import ErrorBody

_ABOUT_FORMAT = re.compile(
    r"response_format|json_schema|json_object|json mode|structured output|guided|grammar|(?:invalid|unsupported|json) schema",
    re.IGNORECASE,
)
_BOUNDS = frozenset(("minItems", "maxItems", "minimum", "maximum", "maxLength", "minLength", "uniqueItems"))
MAX_ENUM = 10
"""A longer list of allowed values is one of ids, and is left out at level 1."""


def is_about_format(body: ErrorBody) -> bool:
    """Whether a refusal is about the response format."""
    return "response_format" in body.param or bool(_ABOUT_FORMAT.search(body.message))


def simpler_format(response_format: dict[str, Any], level: int) -> dict[str, Any] | None:
    """The format at this level; None where none is sent."""
    if level == 0:
        return response_format
    if level == 1:
        schema = response_format["json_schema"]
        return {"type": "json_schema", "json_schema": {"name": schema["name"], "schema": _without_bounds(schema["schema"])}}
    return {"type": "json_object"} if level == 2 else None


def format_level_of(sent: dict[str, Any]) -> int:
    """The level of a format that was sent."""
    if sent.get("type") == "json_object":
        return 2
    return 0 if "strict" in sent["json_schema"] else 1


def _without_bounds(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_bounds(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _without_bounds(value)
        for name, value in schema.items()
        if name not in _BOUNDS and not (name == "enum" and len(value) > MAX_ENUM)
    }
