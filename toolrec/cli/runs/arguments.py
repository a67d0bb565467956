"""Arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolrec.cli.places import PLACE

RunFolder = Annotated[
    Path,
    typer.Argument(
        **PLACE | {"metavar": "RUN"},
        help="Run folder, as `toolrec evaluate` writes it, or its URL; also of a running evaluation.",
        show_default=False,
    ),
]
