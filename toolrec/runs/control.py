"""Limits that change during a run: a file in its folder that `toolrec control` writes and the driver reads.

The driver writes it once, when a session begins, with the limits of its command.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from toolrec.errors import ConfigError, RunFolderError
from toolrec.llm.flow.governor import FlowSettings
from toolrec.runs.folder import read_manifest
from toolrec.util.files import write_json

log = logging.getLogger(__name__)

CONTROL = "control.json"


def current_settings(run: Path) -> FlowSettings:
    """The run's current limits.

    Raises:
        RunFolderError: there is no run, it has not begun, or its control file is damaged.
    """
    read_manifest(run)
    if not (run / CONTROL).exists():
        raise RunFolderError("the run has not begun to simulate", value=str(run))
    try:
        return _read(run / CONTROL)
    except ConfigError as error:
        raise RunFolderError(f"{CONTROL} is damaged: {error}", value=str(run), hint="remove it") from None


def change_settings(run: Path, settings: FlowSettings) -> None:
    """Writes new limits for the driver."""
    write_json(run / CONTROL, settings.as_json())


class ControlFile:
    """The driver's side of the file.

    Args:
        run: the run folder.
        settings: the limits with which this session begins; those of an earlier session are overwritten.
    """

    def __init__(self, run: Path, settings: FlowSettings) -> None:
        self._path = run / CONTROL
        change_settings(run, settings)
        self._seen = self._look()

    def changed(self) -> FlowSettings | None:
        """The limits if they changed since the last call, else None. A damaged file is logged once and ignored."""
        seen = self._look()
        if seen is None or seen == self._seen:
            return None
        self._seen = seen
        try:
            return _read(self._path)
        except ConfigError as error:
            log.warning("%s is left alone: %s", self._path, error)
            return None

    def _look(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino


def _read(path: Path) -> FlowSettings:
    """The file's settings.

    Raises:
        ConfigError: it cannot be read, or a value is wrong.
    """
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"it cannot be read ({type(error).__name__})") from error
    if not isinstance(values, dict):
        raise ConfigError("it holds something else", allowed=FlowSettings.setting_names())
    return FlowSettings.model_validate(values, strict=True)
