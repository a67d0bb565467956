"""`toolrec view` and `toolrec report`: runs as a page to look through."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolrec.cli.places import PLACE

Runs = Annotated[
    list[Path],
    typer.Argument(
        **PLACE | {"metavar": "RUNS..."},
        help="Run folders of `toolrec evaluate`, or their URLs; several over the same users are compared with the first.",
        show_default=False,
    ),
]


def view(
    runs: Runs,
    port: Annotated[int, typer.Option(help="Port on localhost; 0 takes a free one.", min=0, max=65535)] = 0,
) -> None:
    """Serve runs as a page on localhost: figures, users, trajectories. Follows a run that goes on. Ctrl-C ends it."""
    import socket

    import uvicorn

    from toolrec.errors import ConfigError
    from toolrec.report.server import HOST, build_app

    app = build_app(runs)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise ConfigError(f"the port cannot be used ({error.strerror})", value=port, hint="give another --port") from None
        typer.echo(f"http://{HOST}:{listener.getsockname()[1]}/ (Ctrl-C ends it)")
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])


def report(
    runs: Runs,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write; one that is there is replaced.")] = Path(
        "report.html"
    ),
) -> None:
    """Write runs as one HTML file that needs no network: the page that `toolrec view` serves, with all users inside."""
    from toolrec.report import write_report

    write_report(runs, out)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:,.1f} MB")
