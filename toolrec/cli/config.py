"""`toolrec config`: the settings of a command with where each comes from, and their JSON Schema."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from toolrec.cli.settings import TREES, Tree, base_of, command_of, resolved, settings_class

if TYPE_CHECKING:
    from toolrec.util.settings import Declared
    from toolrec.util.settings_sources import Layer

DEFAULT_COMMAND = "evaluate"

NOT_GIVEN = "not given"
"""The origin of what stands for a path that the command needs."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: the settings and the origin of each.")]


class Shown(TyperGroup):
    """The commands whose settings can be shown; what names none is arguments of `toolrec evaluate`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the usual command in front where none is named."""
        is_named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        if args and not is_named and not args[0].startswith("-") and "/" not in args[0] and not Path(args[0]).exists():
            from toolrec.errors import ConfigError

            raise ConfigError("neither a command with settings nor a data set's folder", value=args[0], allowed=list(TREES))
        return super().parse_args(ctx, args if is_named else [DEFAULT_COMMAND, *args])


def build_app() -> typer.Typer:
    """The commands of `toolrec config`."""
    app = typer.Typer(
        help="Show a command's settings and where each comes from, or their JSON Schema.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    show = typer.Typer(
        cls=Shown,
        help="Show the settings that a command would have with these options, and where each comes from. Nothing is started. "
        "Without the name of a command it is `evaluate`.",
        rich_markup_mode=None,
    )
    groups: dict[str, typer.Typer] = {}
    for words, command in _commands().items():
        group, _, name = words.rpartition(" ")
        if group and group not in groups:
            groups[group] = typer.Typer(help=f"Settings of the commands of `toolrec {group}`.", no_args_is_help=True)
            show.add_typer(groups[group], name=group)
        tree = TREES[words]
        about = "the application that Ray Serve runs" if words == "serve" else f"`toolrec {words}`"
        adder = (groups[group] if group else show).command(name, cls=command_of(tree), help=f"Show the settings of {about}.")
        adder(_showing(command, tree))
    app.add_typer(show, name="show")
    app.command("schema")(schema)
    return app


def schema(
    command: Annotated[
        list[str] | None, typer.Argument(help="The command, as in `tune encoder`; default: evaluate.", show_default=False)
    ] = None,
) -> None:
    """Print the JSON Schema of a command's configuration file; editors check and complete YAML with it."""
    from toolrec.errors import ConfigError

    words = " ".join(command or [DEFAULT_COMMAND])
    if words not in TREES:
        raise ConfigError("no command with settings", value=words, allowed=list(TREES))
    typer.echo(json.dumps(settings_class(TREES[words]).model_json_schema(), indent=2, ensure_ascii=False))


def _commands() -> Mapping[str, Callable[..., None]]:
    """The commands themselves, for the options that they have beside their settings."""
    from toolrec.cli import data, llm, tune
    from toolrec.cli.evaluate import evaluate
    from toolrec.cli.mcp import mcp
    from toolrec.cli.plan import plan
    from toolrec.cli.probe_memory import probe_memory
    from toolrec.cli.train import train

    def serve(ctx: typer.Context) -> None:
        """A command of Ray Serve."""

    return {
        "evaluate": evaluate,
        "data prepare": data.prepare,
        "train": train,
        "tune encoder": tune.encoder,
        "tune backbone": tune.backbone,
        "serve": serve,
        "probe-memory": probe_memory,
        "plan": plan,
        "llm check": llm.check,
        "llm serve": llm.serve,
        "mcp": mcp,
    }


def _showing(command: Callable[..., None], tree: Tree) -> Callable[..., None]:
    """A function with the parameters of a command, and `--json`, that shows its settings."""

    def show(ctx: typer.Context, *, as_json: bool, **_: Any) -> None:
        _show(ctx, tree, as_json=as_json)

    signature = inspect.signature(command, eval_str=True)
    parameters = dict(signature.parameters)
    parameters["as_json"] = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)
    show.__signature__ = signature.replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
    show.__annotations__ = {name: one.annotation for name, one in parameters.items()}
    return show


def _show(ctx: typer.Context, tree: Tree, *, as_json: bool) -> None:
    from toolrec.util.settings import declared_in
    from toolrec.util.settings_sources import Layer

    settings = declared_in(settings_class(tree))
    placeholders = {one.key: one.argument or one.key.upper() for one in settings if one.is_required and _is_path(one)}

    def base(known: Mapping[str, Any]) -> list[Layer]:
        missing = {key: word for key, word in placeholders.items() if key not in known}
        return [Layer(NOT_GIVEN, missing), *base_of(tree, known)]

    found = resolved(ctx, base=base)
    origins = {one.key: found.origin_of(one.key) for one in settings}
    if as_json:
        typer.echo(json.dumps({"settings": found.settings.as_json(), "origins": origins}, indent=2, ensure_ascii=False))
        return
    rows = [(one.key, one.shown(one.value_in(found.settings)), origins[one.key]) for one in settings]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for key, value, origin in rows:
        typer.echo(f"{key:<{widths[0]}}  {value:<{min(widths[1], 40)}}  {origin}")


def _is_path(one: Declared) -> bool:
    return one.kind in (Path, str)
