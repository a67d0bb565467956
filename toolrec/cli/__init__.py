"""The command line: one module a verb, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Sequence

import typer

from toolrec import __version__
from toolrec.errors import InputError, StorageError, ToolRecError
from toolrec.grammar import encodable


def build_app() -> typer.Typer:
    """The whole command tree; modules with heavy imports load them inside their commands."""
    from toolrec.cli.control import control
    from toolrec.cli.data import app as data_app
    from toolrec.cli.evaluate import evaluate
    from toolrec.cli.llm import app as llm_app
    from toolrec.cli.show import show
    from toolrec.cli.spend import spend
    from toolrec.cli.train import fit_fusions, train

    app = typer.Typer(
        name="toolrec",
        help=__import__("toolrec").__doc__,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode=None,
    )
    app.add_typer(data_app, name="data")
    app.command("train")(train)
    app.command("fit-fusions")(fit_fusions)
    app.add_typer(llm_app, name="llm")
    app.command("evaluate")(evaluate)
    app.command("control")(control)
    app.command("show")(show)
    app.command("spend")(spend)

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


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; every error of ours is one line on standard error.

    Args:
        arguments: without the program's name; None for the process's own.

    Returns:
        The exit code: 0 complete, 1 our fault, 2 bad input, 3 stopped and resumable, 130 Ctrl-C.
    """
    return run_app(build_app(), "toolrec", arguments)


def run_app(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> int:
    """Runs one command of an application folder's own tree, with the same messages and exit codes."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    broken = next((argument for argument in given if encodable(argument) != argument), None)
    if broken is not None:
        # Manifests, logs and prompts are UTF-8: it would fail in one of them.
        typer.echo(f"error: this argument is not valid UTF-8: {encodable(broken)!r}", err=True)
        return InputError.exit_code
    try:
        app(args=given, prog_name=name)
    except SystemExit as end:  # typer's own: usage errors (2), Ctrl-C (130), the end of a command (0)
        return end.code if isinstance(end.code, int) else 0
    except ToolRecError as error:
        # Endpoints' own words may stand in it: nothing that steers a terminal. Imported late: it brings pandas along.
        from toolrec.evaluation.text import printable

        typer.echo(f"error: {printable(str(error), keep_lines=True)}", err=True)
        return error.exit_code
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        typer.echo("error: no space left on the disk; free some space and run again", err=True)
        return StorageError.exit_code
    return 0


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    sys.exit(run_command())
