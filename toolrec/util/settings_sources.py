"""From files, environment and command line to settings: which value wins, and where each came from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import ValidationError

from toolrec.errors import ConfigError
from toolrec.util.settings import Settings, config_error, declared_in, settings_in

DEFAULT = "default"

AnySettings = TypeVar("AnySettings", bound=Settings)


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one place, by key; a later layer wins.

    Args:
        origin: the place in words, or what gives the words for a key.
        values: nested mappings and keys of several words may be mixed.
    """

    origin: str | Callable[[str], str]
    values: Mapping[str, Any]

    def origin_of(self, key: str) -> str:
        return self.origin if isinstance(self.origin, str) else self.origin(key)


@dataclass(frozen=True, slots=True)
class Resolved(Generic[AnySettings]):
    """Settings, and where each that was given came from: the place that won first, then those that it won over."""

    settings: AnySettings
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def origin_of(self, key: str) -> str:
        """Where a setting came from, in words."""
        places = self.origins.get(key) or next(
            (of_it for outer, of_it in self.origins.items() if key.startswith(f"{outer}.")), (DEFAULT,)
        )
        won, *lost = places
        return f"{won}, over {' and '.join(lost)}" if lost else won


def resolve(kind: type[AnySettings], layers: Sequence[Layer]) -> Resolved[AnySettings]:
    """Settings from layers, the weakest first.

    Raises:
        ConfigError: a setting is unknown, of another type or out of bounds; the message says where it came from.
    """
    values: dict[str, Any] = {}
    origins: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        for key, value in flattened(kind, layer.values).items():
            values[key] = value
            origins[key] = (layer.origin_of(key), *origins.get(key, ()))
    try:
        settings = kind.__pydantic_validator__.validate_python(nested(values))
    except ValidationError as error:
        raise config_error(error, kind, {key: places[0] for key, places in origins.items()}) from None
    return Resolved(settings, origins)


def environment_layers(kind: type[Settings], environment: Mapping[str, str] | None = None) -> list[Layer]:
    """What the environment says; a variable that is set to nothing counts as unset."""
    given = os.environ if environment is None else environment
    return [
        Layer(f"environment {one.env}", {one.key: given[one.env]}) for one in declared_in(kind) if one.env and given.get(one.env)
    ]


def assignments_layer(kind: type[Settings], assignments: Sequence[str]) -> Layer:
    """The values of `--set KEY=VALUE`, each in YAML's form.

    Raises:
        ConfigError: one is no assignment, or two have the same key.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, sign, text = assignment.partition("=")
        key = key.strip()
        if not sign or not key:
            # Not echoed whole: what stands there in place of a key may be a secret.
            raise ConfigError("--set wants KEY=VALUE", hint="as in --set surrogate.rounds=5")
        if key in values:
            raise ConfigError("--set gives one setting twice", value=key)
        values[key] = _scalar(kind, key, text)
    return Layer("flag --set", values)


def _scalar(kind: type[Settings], key: str, text: str) -> Any:
    try:
        value = yaml.load(text, Loader=_Loader)  # a safe loader
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"the value of {key} is not YAML", hint="quote it, as in --set 'key=\"a: b\"'") from None
    declared = next((one for one in declared_in(kind) if one.key == key), None)
    takes_text = declared is not None and declared.kind in (str, Path)
    return text if takes_text and value is not None and not isinstance(value, str) else value


class _Loader(yaml.SafeLoader):
    """YAML without a second value for one key, and without dates."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    values: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise ConfigError("a key of the file is not a text", value=key, hint=_line(key_node))
        if key in values:
            raise ConfigError("a key is there twice", value=key, hint=_line(key_node))
        values[key] = loader.construct_object(value_node, deep=True)
    return values


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_mapping(path: Path, *, what: str = "the configuration") -> dict[str, Any]:
    """A YAML or JSON file that holds a mapping.

    Raises:
        ConfigError: it cannot be read, is no mapping, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=_once) if path.suffix == ".json" else yaml.load(text, Loader=_Loader)
    except ConfigError as error:
        hint = f"{error.hint} of {path}" if error.hint else str(path)
        raise ConfigError(error.message, value=error.value, hint=hint) from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"cannot read {what} ({error.problem}{line})", value=str(path)) from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"cannot read {what} ({' '.join(str(reason).split())})", value=str(path)) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{what} is not a mapping from names to values", value=str(path))
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ConfigError("a key is there twice", value=key)
        values[key] = value
    return values


def flattened(kind: type[Settings] | None, values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by key of several words, as far as there are branches; the rest stays as it is, for validation to refuse."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = None if kind is None or name not in kind.model_fields else settings_in(kind.model_fields[name].annotation)
        if isinstance(value, Mapping) and inner is not None and inner[0] is not None and not inner[1]:
            flat |= flattened(inner[0], value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """The opposite of `flattened`."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *branches, name = key.split(".")
        place = tree
        for branch in branches:
            inner = place.setdefault(branch, {})
            if not isinstance(inner, dict):  # a branch that was given something else: validation says so
                inner = place[branch] = {}
            place = inner
        place[name] = dict(value) if isinstance(value, dict) else value
    return tree
