"""Tool calls that an endpoint left in the text: its own parser was off, or the model wrote another's form.

Read are the forms of Hermes and Qwen (`<tool_call>`), Llama (`<|python_tag|>`, `<function=…>`, `[retrieve(…)]`), Mistral
(`[TOOL_CALLS]`), Kimi, DeepSeek, GLM (`<arg_key>`), gpt-oss (harmony), Anthropic (`<invoke>`), XML with the tool's own name,
JSON in a fence or alone, and a Python call on a line of its own. A call inside a sentence is a mention, and none of them.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from toolrec.errors import ReplyError
from toolrec.records import ActionName, ToolCall
from toolrec.surrogate.reading.arguments import read_arguments
from toolrec.surrogate.reading.json_text import MAX_REPAIR_CHARACTERS, read_json, starts_like_json
from toolrec.surrogate.reading.tool_names import bare_name, known_name

MAX_READ_CHARACTERS = 20_000
"""Longer replies are not searched for calls."""
_MAX_CALLS = 8

_NAME_KEYS = ("name", "tool", "tool_name", "function", "action", "function_name")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "input", "tool_input", "action_input", "params", "kwargs")
_FUNCTION = re.compile(r"<function(?:=|\s+name=[\"'])([^>\"']{1,80})[\"']?>")
_INVOKE = re.compile(r"<(?:antml:)?invoke name=\"([^\"]{1,80})\">")
_PARAMETER = re.compile(r"<(?:antml:)?parameter(?:=|\s+name=[\"'])([^>\"']{1,80})[\"']?>")
_PARAMETER_END = re.compile(r"</(?:antml:)?parameter>")
_KIMI = re.compile(r"([\w.:]{1,80})\s{0,9}<\|tool_call_argument_begin\|>")
_HARMONY = re.compile(r"to=([\w.]{1,80})")
_FENCE = re.compile(r"```([\w-]{0,20})[ \t]{0,9}\n?")
_ARG_KEY = re.compile(r"<arg_key>([^<]{1,80})</arg_key>")
_CHILD = re.compile(r"<(\w{1,40})>([^<]{0,4000})</\1>")
_SEPARATOR = "<｜tool▁sep｜>"
_PYTHON_CALL = re.compile(r"^[ \t]{0,20}\[?(?:print\()?(?:[A-Za-z_]\w{0,40}\.){0,3}([A-Za-z_]\w{0,40})\(", re.MULTILINE)
_POSITIONAL = {"retrieve": ("attribute", "k"), "rank": ("attribute", "k"), "finish": ("items",)}


class LeakedCall(NamedTuple):
    """A call found in a text; `arguments` is JSON text or a decoded value, `form` names what it was written in."""

    name: str
    arguments: Any
    form: str


def leaked_call(text: str, *, allowed: Collection[str]) -> ToolCall | None:
    """The call that a reply's text holds, or None where it holds none.

    Of several the first is taken, as in the text protocol: what follows was written before its observation.

    Raises:
        ReplyError: a call that cannot be read, or a finish beside other calls.
    """
    if len(text) > MAX_READ_CHARACTERS or not any(mark in text for mark in ("{", "<", "(", "[")):
        return None
    for form in _FORMS:
        calls = [call for call in form(text) if call.name]
        known = [call for call in calls if bare_name(call.name) in allowed]
        if not known and calls and calls[0].form not in _WEAK:
            known_name(calls[0].name, allowed)
        if known:
            return _first(known, allowed)
    return None


def _first(calls: list[LeakedCall], allowed: Collection[str]) -> ToolCall:
    names: list[ActionName] = [known_name(call.name, allowed)[0] for call in calls]
    if names[0] == "finish" and any(name != "finish" for name in names):
        raise ReplyError("there are several calls; make one, and finish only after its observation", kind="finish_beside_calls")
    call = read_arguments(names[0], calls[0].arguments)
    return ToolCall(
        name=call.name,
        attribute=call.attribute,
        k=call.k,
        items=call.items,
        repairs=(f"leaked_{calls[0].form}", *call.repairs),
    )


def _between(text: str, opening: str, closing: str) -> Iterator[str]:
    """What stands between each pair of marks; the last may lack its closing one, which is a stop text for some models."""
    at = 0
    for _ in range(_MAX_CALLS):
        start = text.find(opening, at)
        if start < 0:
            return
        start += len(opening)
        end = text.find(closing, start)
        yield text[start : end if end >= 0 else None]
        if end < 0:
            return
        at = end + len(closing)


def _tags(text: str) -> Iterator[LeakedCall]:
    for opening, closing in _TAGS:
        if opening in text:
            for inner in _between(text, opening, closing):
                yield from _inside(inner.strip(), "tag")


_TAGS = (
    ("<tool_call>", "</tool_call>"),
    ("<|tool_call|>", "<|/tool_call|>"),
    ("<|tool_call_start|>", "<|tool_call_end|>"),
    ("<functioncall>", "</functioncall>"),
    ("<function_call>", "</function_call>"),
    ("<tool_calls>", "</tool_calls>"),
    ("<|python_tag|>", "<|eom_id|>"),
    ("<tools>", "</tools>"),
)


def _inside(text: str, form: str) -> Iterator[LeakedCall]:
    """Calls in a text that is known to hold nothing else."""
    if "<function" in text:
        yield from _functions(text)
    elif "<arg_key>" in text:
        name = text.partition("<")[0].strip()
        keys = [match for match in _ARG_KEY.finditer(text)][:20]
        yield LeakedCall(name, {key.group(1).strip(): _value(_after(text, key.end(), "arg_value")) for key in keys}, form)
    elif starts_like_json(text):
        found = list(_json_calls(text, form))
        yield from found or _python(text)
    else:
        yield from _python(text)


def _functions(text: str) -> Iterator[LeakedCall]:
    for match in list(_FUNCTION.finditer(text))[:_MAX_CALLS]:
        inner = text[match.end() :].partition("</function>")[0].strip()
        if _PARAMETER.search(inner):
            yield LeakedCall(match.group(1), _parameters(inner), "function")
        else:
            yield LeakedCall(match.group(1), inner.partition("</tool_call>")[0] or "{}", "function")


def _invocations(text: str) -> Iterator[LeakedCall]:
    for match in list(_INVOKE.finditer(text))[:_MAX_CALLS]:
        inner = text[match.end() :].partition("invoke>")[0]
        yield LeakedCall(match.group(1), _parameters(inner), "invoke")


def _parameters(text: str) -> dict[str, Any]:
    values = {}
    for match in list(_PARAMETER.finditer(text))[:20]:
        end = _PARAMETER_END.search(text, match.end())
        values[match.group(1).strip()] = _value(text[match.end() : end.start() if end else None])
    return values


def _value(text: str) -> Any:
    """A parameter's value: a list where it is one in JSON, else the text."""
    stripped = text.strip()
    if stripped[:1] == "[":
        try:
            return read_json(stripped)[0]
        except ReplyError:
            return stripped
    return stripped


def _after(text: str, start: int, tag: str) -> str:
    _, _, rest = text[start:].partition(f"<{tag}>")
    return rest.partition(f"</{tag}>")[0]


def _mistral(text: str) -> Iterator[LeakedCall]:
    for part in text.split("[TOOL_CALLS]")[1 : 1 + _MAX_CALLS]:
        if starts_like_json(part):
            yield from _json_calls(part.strip(), "mistral")
        else:
            name, brace, rest = part.partition("{")
            yield LeakedCall(name.partition("[")[0], brace + rest.strip(), "mistral")


def _kimi(text: str) -> Iterator[LeakedCall]:
    if "<|tool_call_argument_begin|>" in text:
        for match in list(_KIMI.finditer(text))[:_MAX_CALLS]:
            yield LeakedCall(match.group(1), text[match.end() :].partition("<|tool_call_end|>")[0].strip(), "kimi")


def _harmony(text: str) -> Iterator[LeakedCall]:
    if "<|message|>" in text:
        for match in list(_HARMONY.finditer(text))[:_MAX_CALLS]:
            _, _, rest = text[match.end() :].partition("<|message|>")
            yield LeakedCall(match.group(1), rest.partition("<|")[0].strip(), "harmony")


def _deepseek(text: str) -> Iterator[LeakedCall]:
    parts = text.split(_SEPARATOR)
    for before, after in list(itertools.pairwise(parts))[:_MAX_CALLS]:
        inner = after.partition("<｜tool▁call")[0].strip()
        if starts_like_json(inner):
            yield LeakedCall(before.rpartition("｜>")[2].strip(), inner, "deepseek")
        else:
            name, _, rest = inner.partition("\n")
            yield LeakedCall(name, rest.strip(), "deepseek")


def _fences(text: str) -> Iterator[LeakedCall]:
    at = 0
    for _ in range(_MAX_CALLS):
        opening = _FENCE.search(text, at)
        if opening is None:
            return
        end = text.find("```", opening.end())
        inner = text[opening.end() : end if end >= 0 else None].strip()
        at = end + 3 if end >= 0 else len(text)
        if starts_like_json(inner):
            yield from _json_calls(inner, "fence")
        else:
            yield from _python(inner)


def _json_alone(text: str) -> Iterator[LeakedCall]:
    stripped = text.strip()
    if starts_like_json(stripped):
        yield from _json_calls(stripped, "json")
    elif len(stripped) <= MAX_REPAIR_CHARACTERS:
        # A thought, and below it a call that begins a line and ends the reply.
        start = max(stripped.rfind("\n{"), stripped.rfind("\n["))
        if start >= 0 and stripped[-1] in "}]":
            yield from _json_calls(stripped[start + 1 :], "json")


def _json_calls(text: str, form: str) -> Iterator[LeakedCall]:
    try:
        value, _ = read_json(text)
    except ReplyError:
        value = _one_after_another(text)
    entries = value if isinstance(value, list) else [value]
    for entry in entries[:_MAX_CALLS]:
        if isinstance(entry, dict):
            yield from _object_calls(entry, form)


def _one_after_another(text: str) -> list[Any]:
    values: list[Any] = []
    decoder, at = json.JSONDecoder(strict=False), 0
    try:
        while at < len(text) and len(values) < _MAX_CALLS:
            value, at = decoder.raw_decode(text, at)
            values.append(value)
            while text[at : at + 1].isspace() or text[at : at + 1] in (",", ";"):
                at += 1
    except (ValueError, RecursionError):
        return []
    return values


def _object_calls(entry: dict[str, Any], form: str) -> Iterator[LeakedCall]:
    calls = entry.get("tool_calls", entry.get("function_call"))
    if isinstance(calls, (list, dict)):
        for call in (calls if isinstance(calls, list) else [calls])[:_MAX_CALLS]:
            if isinstance(call, dict):
                yield from _object_calls({key: value for key, value in call.items() if key != "tool_calls"}, form)
        return
    function = entry.get("function")
    if isinstance(function, dict):
        entry = function
    name = next((entry[key] for key in _NAME_KEYS if isinstance(entry.get(key), str)), None)
    if name is not None:
        arguments = next((entry[key] for key in _ARGUMENT_KEYS if key in entry), None)
        rest = {key: value for key, value in entry.items() if key not in (*_NAME_KEYS, "type", "id", "thought")}
        yield LeakedCall(name, rest if arguments is None else arguments, form)
    elif len(entry) == 1:
        ((key, value),) = entry.items()
        if isinstance(value, dict):
            yield LeakedCall(key, value, form)


def _own_tags(text: str) -> Iterator[LeakedCall]:
    for name in _POSITIONAL:
        if f"<{name}>" in text:
            for inner in _between(text, f"<{name}>", f"</{name}>"):
                if starts_like_json(inner):
                    yield LeakedCall(name, inner.strip(), "own_tag")
                else:
                    fields = {key: _value(value) for key, value in _CHILD.findall(inner[:MAX_REPAIR_CHARACTERS])}
                    yield LeakedCall(name, fields, "own_tag")


def _python(text: str) -> Iterator[LeakedCall]:
    """Python calls that begin a line and have nothing but closing marks behind."""
    for match in list(_PYTHON_CALL.finditer(text))[:_MAX_CALLS]:
        name = match.group(1)
        if name.casefold() not in _POSITIONAL:
            continue
        end = closing_bracket(text, match.end() - 1)
        if end < 0 or text[end + 1 :].partition("\n")[0].strip(" \t)];,`"):
            continue
        fields = _literals(name.casefold(), text[match.end() : end])
        if fields is not None:
            yield LeakedCall(name, fields, "python")


def _literals(name: str, inner: str) -> dict[str, Any] | None:
    if len(inner) > MAX_REPAIR_CHARACTERS:
        return None
    try:
        call = ast.parse(f"f({inner})", mode="eval").body
        if not isinstance(call, ast.Call) or len(call.args) > len(_POSITIONAL[name]):
            return None
        fields = {key: ast.literal_eval(value) for key, value in zip(_POSITIONAL[name], call.args, strict=False)}
        fields |= {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None
    return fields or None


def closing_bracket(text: str, start: int, *, limit: int = 100_000) -> int:
    """Where the bracket at `start` closes, those of its own kind inside it counted; -1 where it does not."""
    opening = text[start]
    closing = _PAIRS[opening]
    depth = 0
    for match in re.compile(f"[{re.escape(opening + closing)}]").finditer(text, start, start + limit):
        depth += 1 if match.group() == opening else -1
        if depth == 0:
            return match.start()
    return -1


_PAIRS = {"[": "]", "(": ")", "{": "}", "<": ">", "【": "】", "（": "）", "［": "］"}
_FORMS: tuple[Callable[[str], Iterator[LeakedCall]], ...] = (
    _tags,
    _mistral,
    _kimi,
    _deepseek,
    _harmony,
    _invocations,
    _functions,
    _own_tags,
    _fences,
    _json_alone,
    _python,
)
_WEAK = frozenset(("fence", "json", "own_tag", "python"))
"""Forms that other things have too: a name that is no tool's does not make them a call."""
