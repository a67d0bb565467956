"""Sweeps on Ray Tune over encoder and backbone hyper-parameters."""

from contextvars import ContextVar

COMMAND: ContextVar[str] = ContextVar("command", default="toolrec tune")
"""The command that the user called, for messages: `toolrec tune`, or `python -m tune` in a checkout."""
