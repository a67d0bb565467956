"""Limits changed while a run is under way: a small file in its folder, from `toolrec control` to the driver.

The driver writes it when it begins, with the limits of its own command; after that it only reads it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from toolrec.errors import ConfigError, RunFolderError
from toolrec.files import write_json
from toolrec.llm.flow import FlowSettings
from toolrec.simulation.run_folder import read_manifest

log = logging.getLogger(__name__)

CONTROL = "control.json"
_NAMES = tuple(field.name for field in fields(FlowSettings))


def current_settings(run: Path) -> FlowSettings:
    """What the run keeps to now.

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
    """Writes the settings for the driver to find, whole or not at all."""
    write_json(run / CONTROL, asdict(settings))


class ControlFile:
    """The driver's side: tells of each change once.

    Args:
        run: the run folder.
        settings: what this session begins with, whatever an earlier one was told.
    """

    def __init__(self, run: Path, settings: FlowSettings) -> None:
        self._path = run / CONTROL
        change_settings(run, settings)
        self._seen = self._look()

    def changed(self) -> FlowSettings | None:
        """The settings if they changed since the last look; a damaged file changes nothing and is logged once."""
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
    if not isinstance(values, dict) or not set(values) <= set(_NAMES):
        raise ConfigError("it holds something else", allowed=_NAMES)
    for name, value in values.items():
        allowed: tuple[type, ...] = {"is_paused": (bool,), "llm_concurrency": (int,)}.get(name, (int, float))
        is_number = isinstance(value, allowed) and (name == "is_paused" or not isinstance(value, bool))
        if not is_number and (value is not None or name == "is_paused"):
            raise ConfigError(f"{name} is no such value", value=value)
    return FlowSettings(**values)
