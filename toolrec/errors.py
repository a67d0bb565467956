"""Every exception of the package.

ToolRecError                  exit code 1
├── InputError                2  something that the person gave is wrong
│   ├── DataError                data files and data set folders
│   ├── ConfigError              flags, settings, environment
│   ├── CheckpointError          recommenders' folders
│   ├── RunFolderError           run folders
│   └── RecordingError           recordings of replies, and calls that a replayed one does not have
├── LLMError                  2  the endpoint cannot be used
│   ├── LLMUnavailableError         unreachable, or out of attempts
│   ├── LLMRefusedError             a final answer: wrong key, unknown model
│   │   └── MessagesRefusedError           to these messages alone: content filter
│   └── ContextTooLongError         the messages do not fit
├── RunFailedError            1  every user of a run came to nothing; its folder says why
├── StorageError              3  the disk is full or a file cannot be written; the run is resumable
│   └── RemoteStorageError       a bucket is missing, refuses, or does not answer; at the start an input error says so
├── RunStoppedError           3  stopped before the end; the run is resumable
├── ReplyError                -  the LLM's reply cannot be used; it is asked again with the reason
└── ToolError                 -  goes back to the LLM as text
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

FailureKind = Literal[
    "unavailable",
    "refused",
    "messages_refused",
    "context_too_long",
    "invalid_reply",
    "token_budget",
    "time_budget",
    "tool_lost",
    "actor_lost",
    "internal_error",
]
"""Why a user failed: the first four are LLM errors, the last three ours."""


class ToolRecError(Exception):
    """Base of all; `exit_code` is what the command line ends with.

    Every subclass survives pickling with its fields: `Exception` gives its class the message and then its attributes, so
    all other arguments have defaults.

    Args:
        message: What was wrong.
        value: The offending value, shown as given.
        allowed: What would have been accepted.
        hint: What to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, value: Any = None, allowed: Any = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.value = value
        self.allowed = allowed
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.message]
        if self.value is not None:
            parts.append(f"got: {_short(self.value)}")
        if self.allowed is not None:
            parts.append(f"allowed: {_listed(self.allowed)}")
        if self.hint:
            parts.append(self.hint)
        return "; ".join(parts)


def _short(value: Any, limit: int = 300) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


def _listed(allowed: Any) -> str:
    if isinstance(allowed, (list, tuple, set, frozenset)):
        return ", ".join(str(a) for a in allowed)
    return str(allowed)


class InputError(ToolRecError):
    """Something that the person gave is wrong."""

    exit_code = 2


class DataError(InputError):
    """A data file or data set folder is missing, damaged or of the wrong shape."""


class ConfigError(InputError):
    """A flag, setting or environment variable is wrong."""


class CheckpointError(InputError):
    """A recommenders' folder is missing, damaged or belongs to another data set."""


class RunFolderError(InputError):
    """A run folder is missing, damaged, already there or of another configuration."""


class RecordingError(InputError):
    """A recording of replies is missing, damaged or there already, or has no reply to a call; no LLM error: the run ends."""


class LLMError(ToolRecError):
    """The LLM endpoint cannot be used.

    Attributes:
        failure_kind: how a user that ends with it is recorded.

    Args:
        http_status: of the answer behind the error; None where there was none.
    """

    exit_code = 2
    failure_kind: ClassVar[FailureKind] = "unavailable"

    def __init__(
        self, message: str, *, http_status: int | None = None, value: Any = None, allowed: Any = None, hint: str | None = None
    ) -> None:
        super().__init__(message, value=value, allowed=allowed, hint=hint)
        self.http_status = http_status


class LLMUnavailableError(LLMError):
    """The endpoint cannot be reached, or every attempt failed; `http_status` is that of the last one."""


class LLMRefusedError(LLMError):
    """The endpoint's answer is final: wrong key, unknown model."""

    failure_kind: ClassVar[FailureKind] = "refused"


class MessagesRefusedError(LLMRefusedError):
    """The endpoint's answer is final for these messages and says nothing of others: content filter."""

    failure_kind: ClassVar[FailureKind] = "messages_refused"


class ContextTooLongError(LLMError):
    """The messages do not fit the model's context."""

    failure_kind: ClassVar[FailureKind] = "context_too_long"


class RunFailedError(ToolRecError):
    """Every user of a run came to nothing for a reason of ours; the run folder says why."""


class StorageError(ToolRecError):
    """The disk is full or a file cannot be written; what was written before stays usable."""

    exit_code = 3


class RemoteStorageError(StorageError):
    """What lies at a URL cannot be read or written; `is_missing` where nothing is there."""

    def __init__(
        self, message: str, *, is_missing: bool = False, value: Any = None, allowed: Any = None, hint: str | None = None
    ) -> None:
        super().__init__(message, value=value, allowed=allowed, hint=hint)
        self.is_missing = is_missing


class RunStoppedError(ToolRecError):
    """The run ended before its last user; `--resume` continues it."""

    exit_code = 3


class ReplyError(ToolRecError):
    """The LLM's reply cannot be used as an action or a list; the message is the reason it is told, `kind` is counted."""

    def __init__(
        self, message: str, *, kind: str = "unreadable", value: Any = None, allowed: Any = None, hint: str | None = None
    ) -> None:
        super().__init__(message, value=value, allowed=allowed, hint=hint)
        self.kind = kind


class ToolError(ToolRecError):
    """A tool call cannot be carried out; the text goes back to the LLM as the observation."""
