"""Recordings: every reply of a run in files of JSON lines, from which another run is answered without any endpoint.

recording.json   the model, its parameters and the settings that the replies depend on; no address, no key
replies.jsonl    one reply a line, by user, round and attempt; `replies-*.jsonl` while a run is under way

A line holds `key` (the call's SHA-256), `user_id`, `attempt`, `round`, `call` (model, parameters and hashes of messages
and tools: no texts of prompts) and `reply` (`text`, `tool_calls` as [id, name, arguments], `finish_reason`, `reasoning`,
`prompt_tokens`, `completion_tokens`, `cached_tokens`; only `error`, with its kind, where the call failed for good).
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolrec.errors import (
    ContextTooLongError,
    LLMError,
    LLMRefusedError,
    LLMUnavailableError,
    MessagesRefusedError,
    RecordingError,
)
from toolrec.llm.call_site import CALL_SITE
from toolrec.llm.stores.storing import StoredCall, reply_from_json, reply_to_json
from toolrec.records import Completion
from toolrec.util.files import atomic_file, read_json, sha256_json, storage_errors, write_json

HEADER_FILE = "recording.json"
REPLIES_FILE = "replies.jsonl"
PARTS = "replies-*.jsonl"
SCHEMA_VERSION = 1

_FAILURES = {kind.__name__: kind for kind in (LLMUnavailableError, LLMRefusedError, MessagesRefusedError, ContextTooLongError)}

_LINE = {"key": str, "user_id": str, "round": int, "attempt": int, "call": dict, "reply": dict}
_CALL = {"model", "parameters", "tools", "stop", "messages"}

_HINT = "replay with the settings, data set and recommenders of the recording, or record again"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingHeader:
    """What a recording's replies depend on.

    Args:
        model: the model's name.
        parameters: sampling parameters by name.
        settings: of the recorded run, by name; what is different in a replay is told.
    """

    model: str
    parameters: Mapping[str, Any]
    settings: Mapping[str, Any]

    def differences(self, settings: Mapping[str, Any]) -> list[str]:
        """In what another run's settings differ, in words."""
        names = [name for name in self.settings if name in settings and self.settings[name] != settings[name]]
        return [f"{name} was {self.settings[name]}, now {settings[name]}" for name in names]


def begin_recording(folder: Path, header: RecordingHeader, *, is_resumed: bool) -> None:
    """Makes a recording's folder, or goes on with the one that the resumed run began.

    Raises:
        RecordingError: there is a recording already, or the one to go on with was made with other settings.
        StorageError: it cannot be written.
    """
    if (folder / HEADER_FILE).exists():
        if not is_resumed:
            raise RecordingError("there is a recording already", value=str(folder), hint="give another --record folder")
        different = read_header(folder).differences(header.settings)
        if different:
            raise RecordingError(f"the recording was made with other settings: {'; '.join(different)}", value=str(folder))
        return
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    content = {"schema_version": SCHEMA_VERSION, "model": header.model, "parameters": dict(header.parameters)}
    write_json(folder / HEADER_FILE, {**content, "settings": dict(header.settings)})


def read_header(folder: Path) -> RecordingHeader:
    """What the recording's replies depend on.

    Raises:
        RecordingError: there is no recording, or it is damaged.
    """
    content = read_json(folder / HEADER_FILE, error=RecordingError)
    if not isinstance(content, dict):
        raise RecordingError(f"{HEADER_FILE} is damaged: it is no object", value=str(folder))
    if content.get("schema_version") != SCHEMA_VERSION:
        raise RecordingError("the recording has another layout", value=content.get("schema_version"), allowed=SCHEMA_VERSION)
    parts: dict[str, Any] = {name: content.get(name) for name in ("model", "parameters", "settings")}
    for name, kind in (("model", str), ("parameters", dict), ("settings", dict)):
        if not isinstance(parts[name], kind):
            raise RecordingError(f"{HEADER_FILE} is damaged: it has no {name}", value=str(folder))
    return RecordingHeader(**parts)


def end_recording(folder: Path) -> None:
    """Puts the parts together in one file, in an order that does not depend on timing.

    Raises:
        StorageError: it cannot be written; the parts stay, and are as good.
    """
    parts = sorted(folder.glob(PARTS))
    if not parts:
        return
    lines = _lines_in_order(folder)
    with atomic_file(folder / REPLIES_FILE) as temporary, temporary.open("w", encoding="utf-8") as handle:
        handle.writelines(_text(line) for line in lines)
    for part in parts:
        part.unlink()


class Recorder:
    """Appends every reply to a file of its own in the recording's folder, before the reply is used.

    A process that is killed leaves the replies of every round that it completed.

    Raises:
        StorageError: the folder is not there or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / PARTS.replace("*", uuid.uuid4().hex)
        with storage_errors(folder):
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def get(self, call: StoredCall) -> None:
        """Nothing: the endpoint is asked."""

    def put(self, call: StoredCall, reply: Completion) -> None:
        """Appends the reply."""
        self._append(call, reply_to_json(reply))

    def note_failure(self, call: StoredCall, error: LLMError) -> None:
        """Appends that there was none: a replay fails there too. Only the kind is kept; messages may name the endpoint."""
        status = {} if error.http_status is None else {"http_status": error.http_status}
        self._append(call, {"error": type(error).__name__, **status})

    def _append(self, call: StoredCall, reply: dict[str, Any]) -> None:
        site = CALL_SITE.get()
        line = {
            "key": call.key,
            "user_id": site.user_id if site else "",
            "attempt": site.attempt if site else 0,
            "round": site.round if site else 0,
            "call": call.outline,
            "reply": reply,
        }
        left = _text(line).encode()
        with storage_errors(self._path):
            while left:
                left = left[os.write(self._file, left) :]


class Recording:
    """A recording's replies, to answer from.

    The same call of another user is answered too; where a call was made several times, its own user's and round's
    reply comes first, of the latest attempt.

    Args:
        folder: the recording's folder.

    Raises:
        RecordingError: there is no recording, or it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        read_header(folder)
        self._by_key: dict[str, list[dict[str, Any]]] = {}
        self._by_site: dict[tuple[str, int], list[dict[str, Any]]] = {}
        self._num_given: dict[tuple[str, int, int, str], int] = {}
        for line in _lines_in_order(folder):
            self._by_key.setdefault(line["key"], []).append(line)
            self._by_site.setdefault((line["user_id"], line["round"]), []).append(line)

    def get(self, call: StoredCall) -> Completion:
        """The recorded reply.

        Raises:
            LLMError: the call failed when it was recorded.
            RecordingError: there is none; says in what the call differs from the one that was recorded there.
        """
        site = CALL_SITE.get()
        user_id, number, attempt = (site.user_id, site.round, site.attempt) if site else ("", 0, 0)
        found = self._by_key.get(call.key)
        if found is None:
            raise RecordingError(
                f"the recording has no reply for user {user_id} in round {number}: {self._why(call)}", hint=_HINT
            )
        own = [line for line in found if (line["user_id"], line["round"]) == (user_id, number)] or found
        last_attempt = max(line["attempt"] for line in own)
        latest = [line for line in own if line["attempt"] == last_attempt]
        asked = (user_id, number, attempt, call.key)
        num_given = self._num_given.get(asked, 0)
        self._num_given[asked] = num_given + 1
        return _answer(latest[min(num_given, len(latest) - 1)]["reply"])

    def put(self, call: StoredCall, reply: Completion) -> None:
        """Nothing: a recording is not changed by being replayed."""

    def note_failure(self, call: StoredCall, error: LLMError) -> None:
        """Nothing, likewise."""

    def _why(self, call: StoredCall) -> str:
        site = CALL_SITE.get()
        there = self._by_site.get((site.user_id, site.round), ()) if site else ()
        if not there:
            return "nothing was recorded there"
        return min((_differences(line["call"], call.outline) for line in there), key=len)[0]


def _answer(reply: Mapping[str, Any]) -> Completion:
    """The recorded reply, or the recorded failure raised."""
    if "error" in reply:
        raise _FAILURES[reply["error"]]("the call failed when it was recorded", http_status=reply.get("http_status"))
    return reply_from_json(reply)


def checksum(folder: Path) -> str:
    """Of everything that a replay is answered by, however it is spread over files."""
    return sha256_json(sorted(sha256_json(line) for line in _lines(folder)))


def _differences(recorded: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """In what two calls differ, the most telling first; never nothing."""
    if recorded["model"] != asked["model"]:
        return [f"the model was {recorded['model']}, now {asked['model']}"]
    before, now = recorded["parameters"], asked["parameters"]
    said = [f"{name} was {before.get(name)}, now {now.get(name)}" for name in now if before.get(name) != now.get(name)]
    said += [f"the {name} differ" for name in ("tools", "stop") if recorded[name] != asked[name]]
    pairs = list(zip(recorded["messages"], asked["messages"], strict=False))
    number = next((i for i, (old, new) in enumerate(pairs, start=1) if old != new), None)
    if number is not None:
        role = asked["messages"][number - 1].split()[0]
        said.append(f"message {number} of {len(asked['messages'])} ({role}) is another one")
    elif len(recorded["messages"]) != len(asked["messages"]):
        said.append(f"it had {len(recorded['messages'])} messages, now {len(asked['messages'])}")
    return said or ["it is recorded under another key"]


def _lines_in_order(folder: Path) -> list[dict[str, Any]]:
    """All recorded replies, in an order that does not depend on timing."""
    return sorted(_lines(folder), key=lambda line: (line["user_id"], line["round"], line["attempt"]))


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    """All recorded replies; a last line that a kill cut short is left out.

    Raises:
        RecordingError: a file is damaged.
    """
    for path in sorted(folder.glob("replies*.jsonl")):
        content = path.read_bytes()
        for number, text in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
            try:
                line: dict[str, Any] = json.loads(text)
                _check(line)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise RecordingError(f"line {number} of the recording is damaged ({error!r})", value=str(path)) from None
            yield line


def _check(line: Mapping[str, Any]) -> None:
    """Raises what reading the line would raise where it is damaged."""
    for name, kind in _LINE.items():
        if not isinstance(line[name], kind):
            raise TypeError(f"{name} is no {kind.__name__}")
    if missing := _CALL - set(line["call"]):
        raise KeyError(min(missing))
    reply = line["reply"]
    if "error" in reply:
        _FAILURES[reply["error"]]
        if (status := reply.get("http_status")) is not None and status not in range(100, 600):
            raise ValueError("http_status is none")
    else:
        reply_from_json(reply)


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line, separators=(",", ":")) + "\n"
