"""`python -m tune …`: the sweeps' command line."""

from __future__ import annotations

import sys

from toolrec.cli import run_app
from toolrec.cli.tune import build_app

if __name__ == "__main__":
    sys.exit(run_app(build_app(), "python -m tune"))
