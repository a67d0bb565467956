"""From declared settings to a command's options, and from what was given to settings."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand

from toolrec.util.urls import place_of

_GIVEN = "toolrec.settings"

READ_MAPPING = "toolrec.util.settings_sources:read_mapping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A tree of settings for the command line. Its parts are import paths, for importing them takes longer than `--help` may.

    Args:
        settings: the settings' class.
        also_read: what `--config` reads beside YAML and JSON files of settings, in words.
        read_file: reads what `--config` names.
        base: gives layers below all others from the values by key that are known so far.
    """

    settings: str
    also_read: str = ""
    read_file: str = READ_MAPPING
    base: str = ""


RUN = Tree(
    settings="toolrec.config:RunConfig",
    also_read="a finished run's manifest.json",
    read_file="toolrec.config:read_run_config",
    base="toolrec.presets:preset_layers",
)
TREES: Mapping[str, Tree] = {
    "evaluate": RUN,
    "data prepare": Tree(
        settings="toolrec.data.options:PrepareSettings",
        also_read="a TOML file as `toolrec data template` prints it",
        read_file="toolrec.data.options:read_prepare_config",
    ),
    "train": Tree(
        settings="toolrec.recommenders.train:TrainConfig",
        also_read="trained recommenders' manifest.json",
        read_file="toolrec.recommenders.train:read_train_config",
        base="toolrec.recommenders.train:recipe_layers",
    ),
    "tune encoder": Tree(settings="toolrec.tuning.config:EncoderSweep"),
    "tune backbone": Tree(settings="toolrec.tuning.config:BackboneSweep"),
    "serve": Tree(settings="toolrec.serving.config:AppConfig"),
    "probe-memory": Tree(settings="toolrec.probing:ProbeConfig"),
    "plan": Tree(settings="toolrec.capacity.config:PlanSettings"),
    "llm check": Tree(settings="toolrec.surrogate.config:CheckSettings"),
    "llm serve": Tree(settings="toolrec.llm.embedded.options:ServedOptions"),
    "mcp": Tree(settings="toolrec.mcp_server.config:McpConfig"),
}
"""By the words of the command; `serve` is Ray Serve's own command with our application."""


class SettingsCommand(TyperCommand):
    """A command whose options are views of declared settings; they are made when they are first looked at."""

    tree: Tree
    _made: list[Any] | None = None

    @property
    def params(self) -> list[Any]:
        """The settings' options and the command's own."""
        if self._made is None:
            generated = _parameters(settings_class(self.tree), also_read=self.tree.also_read)
            self._generated_names = {one.name for one in generated}
            self._made = [*generated, *self._own]
        return self._made

    @params.setter
    def params(self, own: list[Any]) -> None:
        self._own = own

    @property
    def own_params(self) -> list[Any]:
        """The command's own options alone."""
        return self._own

    def invoke(self, ctx: Any) -> Any:
        """Keeps the settings' values for `resolved` and gives the rest to the command."""
        ctx.meta[_GIVEN] = {name: ctx.params.pop(name) for name in self._generated_names}
        return super().invoke(ctx)


def command_of(tree: Tree) -> type[SettingsCommand]:
    """The class of a command whose options are those of a tree of settings."""
    return type("SettingsCommand", (SettingsCommand,), {"tree": tree})


def given_paths(command: SettingsCommand, values: Mapping[str, Any]) -> dict[str, Path]:
    """The paths among a command line's values, by flag or argument."""
    from toolrec.util.settings import declared_in

    named = [(one.flag or one.argument, one.kind) for one in declared_in(settings_class(command.tree))]
    texts = {name: values.get(_name(name)) for name, kind in named if name is not None and kind is Path}
    return {name: place_of(text) for name, text in texts.items() if text}


def variables_of(command: SettingsCommand) -> list[str]:
    """The environment variables that give settings of a command."""
    from toolrec.util.settings import declared_in

    return [one.env for one in declared_in(settings_class(command.tree)) if one.env]


def settings_class(tree: Tree) -> Any:
    """The settings' class of a tree."""
    return _imported(tree.settings)


def _imported(path: str) -> Any:
    """What an import path names, as `MODULE:NAME`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def resolved(ctx: typer.Context, *, base: Callable[[Mapping[str, Any]], list[Any]] | None = None) -> Any:
    """The settings that a command was given, and where each came from.

    Default < file < environment < command line.

    Args:
        base: in place of the tree's own, see `Tree`.

    Raises:
        ConfigError: something that was given is wrong.
    """
    from toolrec.util.settings import declared_in
    from toolrec.util.settings_sources import (
        Layer,
        assignments_layer,
        environment_layers,
        flattened,
        nested,
        read_mapping,
        resolve,
    )

    assert isinstance(ctx.command, SettingsCommand)
    tree, given = ctx.command.tree, ctx.meta[_GIVEN]
    kind = settings_class(tree)
    layers = []
    if given["config_file"] is not None:
        path = Path(given["config_file"])
        layers.append(Layer(f"file {path}", _imported(tree.read_file)(path)))
    for key, (flag, _) in _file_flags(kind).items():
        if given[_name(flag)] is not None:
            path = Path(given[_name(flag)])
            layers.append(Layer(f"file {path}", nested({key: read_mapping(path, what=f"the file of {flag}")})))
    layers += environment_layers(kind)
    flags: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for one in declared_in(kind):
        name = one.flag or one.argument
        if name is None:
            continue
        value = given.get(_name(name))
        if value is not None and value != () and value != []:
            flags[one.key] = tuple(value) if isinstance(value, (list, tuple)) else value
            origins[one.key] = f"flag {name}" if one.flag else f"argument {name}"
    assigned = assignments_layer(kind, given["assignments"] or ())
    _refuse_twice(flags, flattened(kind, assigned.values), origins)
    layers += [Layer(lambda key: origins[key], flags), assigned]
    known: dict[str, Any] = {}
    for layer in layers:
        known |= flattened(kind, layer.values)
    below = base_of(tree, known) if base is None else base(known)
    return resolve(kind, [*below, *layers])


def base_of(tree: Tree, known: Mapping[str, Any]) -> list[Any]:
    """The layers below all that was given, from the values by key that are known."""
    return list(_imported(tree.base)(known)) if tree.base else []


def _refuse_twice(flags: Mapping[str, Any], assigned: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    from toolrec.errors import ConfigError

    for key in flags.keys() & assigned.keys():
        raise ConfigError("a setting is given twice on the command line", value=f"{origins[key]} and --set {key}")


def _parameters(kind: Any, *, also_read: str) -> list[Any]:
    """The options of a tree of settings, as typer makes them from a function's parameters."""
    from toolrec.util.settings import declared_in

    parameters: dict[str, Any] = {}
    for one in declared_in(kind):
        if one.argument:
            parameters[_name(one.argument)] = Annotated[
                str | None, typer.Argument(metavar=one.argument, help=_help(one), show_default=False)
            ]
        elif one.flag and _name(one.flag) not in parameters:
            parameters[_name(one.flag)] = _option(one)
    for flag, description in _file_flags(kind).values():
        parameters[_name(flag)] = Annotated[str | None, typer.Option(flag, metavar="FILE", help=f"YAML file. {description}")]
    also = f", or {also_read}" if also_read else ""
    parameters["config_file"] = Annotated[
        str | None,
        typer.Option("--config", metavar="FILE", help=f"Settings from a YAML or JSON file{also}."),
    ]
    parameters["assignments"] = Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting by its key; may be repeated. See `toolrec config schema`."),
    ]

    def taken() -> None:
        """Only its signature is used."""

    taken.__annotations__ = parameters
    taken.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=None)
            for name, kind in parameters.items()
        ]
    )
    app = typer.Typer(add_completion=False)
    app.command()(taken)
    made = typer.main.get_command(app).params  # type: ignore[attr-defined]
    return list(made)


def _option(one: Any) -> Any:
    name = one.flag
    if one.kind is bool:
        flags = f"{name}/--no-{name.removeprefix('--')}" if one.default is not False else name
        return Annotated[bool | None, typer.Option(flags, help=_help(one))]
    if (one.kind == tuple[str, ...] and one.none_word is None) or get_origin(one.kind) is dict:
        return Annotated[list[str] | None, typer.Option(name, metavar="TEXT", help=_help(one))]
    return Annotated[str | None, typer.Option(name, metavar=_metavar(one), help=_help(one))]


def _metavar(one: Any) -> str:
    if get_origin(one.kind) is Literal:
        return f"[{'|'.join(map(str, get_args(one.kind)))}]"
    return {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(one.kind, "TEXT")


def _help(one: Any) -> str:
    notes = [f"env {one.env}"] if one.env else []
    if (
        not one.is_required
        and (one.default is not None or one.none_word)
        and one.default not in ((), {})
        and one.default is not False
    ):
        notes.append(f"default: {one.shown(one.default)}")
    return f"{one.description} [{'; '.join(notes)}]" if notes else str(one.description)


def _name(flag: str) -> str:
    """The parameter's name of a flag."""
    return f"given_{flag.lstrip('-').replace('-', '_').lower()}"


def _file_flags(kind: Any) -> dict[str, tuple[str, str]]:
    """By key the flag of a file that gives a whole branch or mapping, and what it gives."""
    from toolrec.util.settings import branches_in, declared_in

    fields = {**branches_in(kind), **{one.key: one.field for one in declared_in(kind)}}
    extra = {key: field.json_schema_extra for key, field in fields.items() if isinstance(field.json_schema_extra, dict)}
    return {
        key: (str(about["file_flag"]), fields[key].description or "") for key, about in extra.items() if about.get("file_flag")
    }
