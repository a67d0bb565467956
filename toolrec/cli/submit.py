"""`toolrec submit`: any other command as a job on a running cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from toolrec.cli.settings import SettingsCommand, given_paths, variables_of

LOCAL = {"config", "control", "show", "submit"}
"""What works on folders at hand, or is no work."""

Command = Annotated[list[str], typer.Argument(metavar="COMMAND …", help="As after `toolrec`.", show_default=False)]


def submit(
    command: Command,
    address: Annotated[
        str | None, typer.Option(help="Job server, http://HOST:8265; default RAY_API_SERVER_ADDRESS, RAY_ADDRESS, this machine.")
    ] = None,
    working_dir: Annotated[
        Path | None, typer.Option(help="Folder that is sent along, for own parts and the code; default this one.")
    ] = None,
    send_nothing: Annotated[bool, typer.Option("--send-nothing", help="Send no folder: the nodes have all of it.")] = False,
    runtime_env: Annotated[
        Path | None, typer.Option(help="YAML file in place of the built-in excludes (cluster/runtime-env.yaml).")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Follow the log, and end with the job's exit code.")] = True,
) -> None:
    """Run another command as a job on a running cluster: `toolrec submit evaluate /shared/data/ml-1m --run /shared/runs/x`."""
    from toolrec.errors import ConfigError
    from toolrec.jobs import STOPPED_EXIT_CODE, JobRequest, follow_job, job_address, job_client, read_runtime_env, submit_job

    if send_nothing and working_dir is not None:
        raise ConfigError("--send-nothing and --working-dir do not go together")
    values = check_command(command)
    environment: dict[str, Any] = {} if runtime_env is None else {"runtime_env": read_runtime_env(runtime_env)}
    request = JobRequest(
        command=("python", "-m", "toolrec", *command),
        address=address,
        working_dir=None if send_nothing else working_dir or Path(),
        **environment,
    )
    where = job_address(address)
    client = job_client(where, _say)
    submission_id = submit_job(client, with_variables(request, command), _say)
    _say(f"job {submission_id} at {where}")
    if not wait:
        _say(f"its log: ray job logs {submission_id} --address {where} --follow")
        return
    try:
        code, message = follow_job(client, submission_id)
    except KeyboardInterrupt:
        _say(f"the job goes on; to stop it: ray job stop {submission_id} --address {where}")
        raise typer.Exit(130) from None
    if code:
        _say(f"the job ended with exit code {code}: {message}")
    for flag in ("--run", "--out", "--sweep"):
        if flag in values and code in (0, STOPPED_EXIT_CODE):
            _say(f"on the cluster: {values[flag]}")
    raise typer.Exit(code)


def check_command(words: list[str]) -> dict[str, Path]:
    """Reads a command as it will be read in the job; gives the paths in it by flag.

    Raises:
        ConfigError: it cannot run as a job, or a path is relative or missing: a job's own folder is a temporary copy.
    """
    from toolrec.errors import ConfigError

    node, rest = _command(words)
    with node.make_context(" ".join(words[: len(words) - len(rest)]), list(rest)) as context:
        if isinstance(node, SettingsCommand):
            paths = given_paths(node, context.params)
        else:
            flags = {one.name: next((name for name in one.opts if name.startswith("--")), one.name) for one in node.params}
            given = {flags[name]: value for name, value in context.params.items() if isinstance(value, Path)}
            # A file of the working folder is there in the job too.
            paths = {flag: path for flag, path in given.items() if path.is_absolute() or not path.is_file()}
    # Their defaults are relative paths.
    for flag in {"evaluate": ("--run", "--recommenders"), "train": ("--out",), "tune": ("--sweep",)}.get(words[0], ()):
        if flag not in paths and words[:2] != ["tune", "resume"]:
            raise ConfigError(f"a job needs {flag}", hint="give a path that every node sees, as /shared/…")
    for flag, path in paths.items():
        if not path.is_absolute():
            raise ConfigError(f"a job needs absolute paths ({flag})", value=str(path), hint="give a path that every node sees")
    return paths


def with_variables(request: Any, words: list[str]) -> Any:
    """Sends the variables along that stand in for flags of the command; keys are none of them."""
    from dataclasses import replace

    node, _ = _command(words)
    declared = variables_of(node) if isinstance(node, SettingsCommand) else []
    declared += [name for parameter in node.params for name in _variables(parameter.envvar)]
    names = [name for name in declared if os.environ.get(name)]
    if not names:
        return request
    given = {name: os.environ[name] for name in names}
    environment = {**request.runtime_env, "env_vars": {**request.runtime_env.get("env_vars", {}), **given}}
    return replace(request, runtime_env=environment)


def _variables(names: str | list[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the first words name, and the words after them."""
    from typer.main import get_command

    from toolrec.cli import build_app
    from toolrec.errors import ConfigError

    node: Any = get_command(build_app())
    rest = words
    while hasattr(node, "commands"):
        allowed = sorted(node.commands.keys() - LOCAL)
        if not rest or rest[0] not in allowed:
            raise ConfigError("not a command that can be a job", value=rest[0] if rest else " ".join(words), allowed=allowed)
        node, rest = node.commands[rest[0]], rest[1:]
    return node, rest


def _say(text: str) -> None:
    typer.echo(text, err=True)
