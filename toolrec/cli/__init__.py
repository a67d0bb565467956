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
    from toolrec.cli.config import build_app as build_config
    from toolrec.cli.data import app as data_app
    from toolrec.cli.evaluate import evaluate
    from toolrec.cli.experiment import build_app as build_experiment
    from toolrec.cli.llm import app as llm_app
    from toolrec.cli.mcp import mcp
    from toolrec.cli.plan import plan
    from toolrec.cli.plan_users import plan_users
    from toolrec.cli.probe_memory import probe_memory
    from toolrec.cli.runs.control import LIMITS, control
    from toolrec.cli.runs.export import export
    from toolrec.cli.runs.show import show
    from toolrec.cli.runs.spend import spend
    from toolrec.cli.runs.view import report, view
    from toolrec.cli.settings import TREES, command_of
    from toolrec.cli.submit import submit
    from toolrec.cli.train import fit_fusions, train
    from toolrec.cli.tune import build_app as build_tune

    app = typer.Typer(
        name="toolrec",
        help=__import__("toolrec").__doc__,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode=None,
    )
    app.add_typer(data_app, name="data")
    app.command("train", cls=command_of(TREES["train"]))(train)
    app.command("fit-fusions")(fit_fusions)
    app.add_typer(build_tune(), name="tune")
    app.add_typer(llm_app, name="llm")
    app.command("evaluate", cls=command_of(TREES["evaluate"]))(evaluate)
    app.add_typer(build_experiment(), name="experiment")
    app.add_typer(build_config(), name="config")
    app.command("mcp", cls=command_of(TREES["mcp"]))(mcp)
    app.command("control", cls=command_of(LIMITS))(control)
    app.command("show")(show)
    app.command("view")(view)
    app.command("report")(report)
    app.command("plan-users")(plan_users)
    app.command("probe-memory", cls=command_of(TREES["probe-memory"]))(probe_memory)
    app.command("plan", cls=command_of(TREES["plan"]))(plan)
    app.command("spend")(spend)
    app.command("export")(export)
    # What stands after the job's command is the command's own.
    app.command("submit", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(submit)

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
        from toolrec.util.printable import printable

        typer.echo(f"error: {printable(str(error), keep_lines=True)}", err=True)
        return error.exit_code
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        hint = "free some space and run again, with --resume where the command has it"
        typer.echo(f"error: no space left on the disk; {hint}", err=True)
        return StorageError.exit_code
    return 0


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    sys.exit(run_command())
