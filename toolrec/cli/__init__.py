"""The command line: one module a verb, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import logging
import os
import sys

import typer

from toolrec import __version__
from toolrec.errors import ToolRecError


def build_app() -> typer.Typer:
    """The whole command tree; modules with heavy imports load them inside their commands."""
    from toolrec.cli import data, evaluate, llm, show, train

    app = typer.Typer(
        name="toolrec",
        help=__import__("toolrec").__doc__,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode=None,
    )
    app.add_typer(data.app, name="data")
    app.command("train")(train.train)
    app.add_typer(llm.app, name="llm")
    app.command("evaluate")(evaluate.evaluate)
    app.command("show")(show.show)

    @app.callback(invoke_without_command=True)
    def root(
        version: bool = typer.Option(False, "--version", help="Print the version and end."),
        verbose: bool = typer.Option(False, "--verbose", "-v", help="Log more."),
    ) -> None:
        if version:
            typer.echo(f"toolrec {__version__}")
            raise typer.Exit()
        logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")

    return app


def main() -> None:
    """Runs the command line; every error of ours is one line on standard error and an exit code."""
    try:
        build_app()()
    except ToolRecError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
