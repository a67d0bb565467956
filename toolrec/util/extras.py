"""Optional packages: imported where they are used, and a clear error where they are not installed."""

from __future__ import annotations

import importlib
from types import ModuleType

from toolrec.errors import ConfigError


def needed(module: str, *, extra: str, purpose: str) -> ModuleType:
    """An optional module.

    Args:
        module: its import path.
        extra: what of ours installs it: an extra as `inspect`, or another package's name with `pip install` before it.
        purpose: what needs it, for the error.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise ConfigError(f"{purpose} needs {module}, which cannot be imported: {error}") from error
        how = extra if extra.startswith("pip ") else f"pip install 'toolrec[{extra}]'"
        raise ConfigError(f"{purpose} needs the package {module.partition('.')[0]}, which is not installed", hint=how) from None
