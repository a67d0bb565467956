"""Arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[
    Path, typer.Argument(help="Run folder, as `toolrec evaluate` writes it; also of a running evaluation.", show_default=False)
]
