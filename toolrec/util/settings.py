"""Settings declared once: type, default, bounds, description, flag and environment variable of each in one line.

A branch of settings is a class derived from `Settings`; trees are made by nesting them. The command line, configuration
files, the manifest, the resume key, the JSON Schema and the reference page are views of `declared_in(tree)`.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from toolrec.errors import ConfigError
from toolrec.util.urls import is_url, place_of

REQUIRED: Any = PydanticUndefined
"""The default of a setting that has none."""

NULL = "null"
"""Stands for None on the command line, as in YAML."""

MIN_SIMILARITY = 60.0
"""Of 100: a known key that is less like an unknown one is no guess at it."""

AnySettings = TypeVar("AnySettings", bound="Settings")


def setting(
    default: Any,
    description: str,
    *,
    flag: str | None = None,
    env: str | None = None,
    argument: str | None = None,
    file_flag: str | None = None,
    changes_results: bool = False,
    stored_as: str | None = None,
    none_word: str | None = None,
    is_shown: bool = True,
    is_output: bool = False,
    **bounds: Any,
) -> Any:
    """Declares one setting of a branch.

    Args:
        default: its value where nothing is given, or `REQUIRED`.
        description: one sentence, with the unit where the name does not tell it.
        flag: the command line's own short flag; without one `--set KEY=VALUE` reaches the setting.
        env: the environment variable that gives it.
        argument: the command line's positional argument that gives it.
        file_flag: the flag of a YAML file that gives it, where it is a mapping.
        changes_results: whether another value changes results. Then it is part of a run's resume key.
        stored_as: its name among the manifest's result settings where that is not its key.
        none_word: the word that stands for None, as `all`.
        is_shown: whether an error may quote the value; not where a key may be given by mistake.
        is_output: whether it says where, and not what: a repeated run does not take it over from a manifest.
        bounds: pydantic's, as `ge=1`.
    """
    about: dict[str, Any] = {
        "flag": flag,
        "environment": env,
        "argument": argument,
        "file_flag": file_flag,
        "changes_results": changes_results,
        "stored_as": stored_as,
        "none_word": none_word,
        "is_shown": None if is_shown else False,
        "is_output": is_output or None,
    }
    extra = {name: value for name, value in about.items() if value is not None}
    return Field(default, description=description, json_schema_extra=extra, **bounds)


def branch(default: Any, description: str, *, has_flags: bool = True, file_flag: str | None = None) -> Any:
    """Declares a branch of a tree.

    Args:
        default: the branch with its defaults at this place, or its class.
        description: one sentence.
        has_flags: whether the flags of its settings are the command line's, where another branch of the class is beside it.
        file_flag: a flag that reads a YAML file into this branch alone.
    """
    extra: dict[str, Any] = {"has_flags": has_flags} | ({"file_flag": file_flag} if file_flag else {})
    if isinstance(default, type):
        return Field(default_factory=default, description=description, json_schema_extra=extra)
    return Field(default, description=description, json_schema_extra=extra)


class Settings(BaseModel):
    """A branch of settings: frozen, and checked whole when it is made.

    Raises:
        ConfigError: a setting is unknown, missing, of another type or out of bounds.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )

    def __init__(self, /, **values: Any) -> None:
        try:
            self.__pydantic_validator__.validate_python(values, self_instance=self)
        except ValidationError as error:
            raise config_error(error, type(self)) from None

    # Branches are validated by pydantic itself and not by this constructor: errors in them keep their whole path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls, obj: Any, **how: Any) -> Self:
        """As pydantic's, with errors of ours."""
        try:
            return cls.__pydantic_validator__.validate_python(obj, **how)  # type: ignore[no-any-return]
        except ValidationError as error:
            raise config_error(error, cls) from None

    @classmethod
    def of(cls, given: Self | Mapping[str, Any]) -> Self:
        """The settings themselves, or made from a mapping."""
        return given if isinstance(given, cls) else cls.model_validate(dict(given))

    @model_validator(mode="before")
    @classmethod
    def _as_people_write_it(cls, values: Any) -> Any:
        return _read(cls, values) if isinstance(values, Mapping) else values

    def replaced(self, **changes: Any) -> Self:
        """A checked copy with other values; a key of several words, as `ray.num_cpus`, goes into a branch."""
        values, in_branches = dict(self), dict[str, dict[str, Any]]()
        for key, value in changes.items():
            name, _, rest = key.partition(".")
            if rest:
                in_branches.setdefault(name, {})[rest] = value
            else:
                values[name] = value
        for name, of_branch in in_branches.items():
            values[name] = values[name].replaced(**of_branch)
        return type(self)(**values)

    def extended(self, kind: type[AnySettings], **more: Any) -> AnySettings:
        """A larger branch of `kind` with these settings in it."""
        return kind(**{**dict(self), **more})

    def as_json(self) -> dict[str, Any]:
        """Plain values, as manifests hold them."""
        return self.model_dump(mode="json")

    @classmethod
    def setting_names(cls) -> tuple[str, ...]:
        """The settings' names, in the order of declaration."""
        return tuple(cls.model_fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One setting of a tree, as it was declared."""

    key: str
    field: FieldInfo
    default: Any
    has_flag: bool
    BRANCH_SEPARATOR: ClassVar[str] = "."

    @property
    def description(self) -> str:
        return self.field.description or ""

    @property
    def flag(self) -> str | None:
        """The short flag, as `--rounds`."""
        return _about(self.field).get("flag") if self.has_flag else None

    @property
    def env(self) -> str | None:
        return _about(self.field).get("environment")

    @property
    def argument(self) -> str | None:
        return _about(self.field).get("argument")

    @property
    def changes_results(self) -> bool:
        return bool(_about(self.field).get("changes_results"))

    @property
    def stored_as(self) -> str:
        """Its name among the result settings of a manifest."""
        return _about(self.field).get("stored_as") or self.key

    @property
    def none_word(self) -> str | None:
        return _about(self.field).get("none_word")

    @property
    def is_output(self) -> bool:
        return bool(_about(self.field).get("is_output"))

    @property
    def is_required(self) -> bool:
        return self.default is REQUIRED

    @property
    def kind(self) -> Any:
        """The type, without None."""
        return _plain(self.field.annotation)[0]

    @property
    def type_words(self) -> str:
        """The type in words, as `whole number`."""
        return _type_words(self.field)

    @property
    def allowed(self) -> str:
        """What values it takes, in words; empty where all of its type."""
        return allowed_words(self.field)

    def value_in(self, tree: Settings) -> Any:
        """The setting's value in a tree."""
        value: Any = tree
        for name in self.key.split("."):
            value = None if value is None else getattr(value, name)
        return value

    def shown(self, value: Any) -> str:
        """A value for people."""
        if value is None:
            return self.none_word or "-"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (tuple, list)):
            return ",".join(map(str, value)) or "(none)"
        return f"{value:g}" if isinstance(value, float) else str(value)


def declared_in(tree: type[Settings]) -> tuple[Declared, ...]:
    """All settings of a tree, in the order of declaration."""
    defaults = {name: field.get_default(call_default_factory=True) for name, field in tree.model_fields.items()}
    return tuple(_walk(tree, "", tree.model_construct(**defaults), has_flags=True))


def branches_in(tree: type[Settings]) -> dict[str, FieldInfo]:
    """The branches of a tree by key."""
    found: dict[str, FieldInfo] = {}
    for name, field in tree.model_fields.items():
        inner, is_by_name = settings_in(field.annotation)
        if inner is not None and not is_by_name:
            found[name] = field
            found |= {f"{name}.{key}": one for key, one in branches_in(inner).items()}
    return found


def _walk(kind: type[Settings], prefix: str, defaults: Settings | None, *, has_flags: bool) -> Iterator[Declared]:
    """`defaults` is the branch at its place; None where only what stands beside it decides."""
    for name, field in kind.model_fields.items():
        default = None if defaults is None else getattr(defaults, name)
        inner, is_by_name = settings_in(field.annotation)
        if inner is not None and not is_by_name and (default is None or isinstance(default, Settings)):
            flags = has_flags and _about(field).get("has_flags", True)
            yield from _walk(inner, f"{prefix}{name}.", default, has_flags=flags)
        else:
            yield Declared(key=prefix + name, field=field, default=default, has_flag=has_flags)


def _about(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _plain(annotation: Any) -> tuple[Any, bool]:
    """A type without `Annotated` and None, and whether it takes None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, False
    others = [kind for kind in get_args(annotation) if kind is not type(None)]
    takes_none = len(others) < len(get_args(annotation))
    return (_plain(others[0])[0] if len(others) == 1 else annotation), takes_none


def settings_in(annotation: Any) -> tuple[type[Settings] | None, bool]:
    """The branch's class in an annotation, and whether it is a mapping from names to such branches."""
    kind, _ = _plain(annotation)
    if isinstance(kind, type) and issubclass(kind, Settings):
        return kind, False
    if get_origin(kind) in (dict, Mapping) or get_origin(kind) is types.GenericAlias:
        return settings_in(get_args(kind)[1])[0], True
    return None, False


@functools.cache
def _numbers_of(kind: type[Settings]) -> frozenset[str]:
    return frozenset(name for name, field in kind.model_fields.items() if _plain(field.annotation)[0] in (int, float))


@functools.cache
def _texts_of(kind: type[Settings]) -> frozenset[str]:
    """Settings that are sequences of texts: one text with commas gives them too."""
    return frozenset(n for n, field in kind.model_fields.items() if _plain(field.annotation)[0] == tuple[str, ...])


def _read(kind: type[Settings], values: Mapping[Any, Any]) -> dict[Any, Any]:
    """What was given, with the forms that people write turned into what pydantic reads."""
    read = dict(values)
    for name, value in values.items():
        field = kind.model_fields.get(name)
        if field is None:
            continue
        if isinstance(value, bool) and name in _numbers_of(kind):
            read[name] = str(value).lower()  # for pydantic true is 1
        elif isinstance(value, str) and value == _about(field).get("none_word"):
            read[name] = None
        elif name in _numbers_of(kind) and value == NULL and _plain(field.annotation)[1]:
            read[name] = None  # as on the command line, where everything is a text
        elif isinstance(value, str) and "\0" in value and _plain(field.annotation)[0] is Path:
            raise ConfigError(f"{name} has a character that no path can have", value=value)
        elif is_url(value) and _plain(field.annotation)[0] is Path:
            read[name] = place_of(value)
        elif isinstance(value, str) and name in _texts_of(kind):
            read[name] = tuple(part.strip() for part in value.split(",") if part.strip())
        elif isinstance(value, Mapping):
            default = field.get_default(call_default_factory=True)
            if isinstance(default, Settings):  # what is not given is as at this place, which may differ from the class
                read[name] = {**dict(default), **value}
    return read


def config_error(error: ValidationError, kind: type[Settings], origins: Mapping[str, str] | None = None) -> ConfigError:
    """The first of pydantic's errors as one of ours.

    Args:
        kind: what was validated.
        origins: where each setting came from, by key, for the message.
    """
    first: ErrorDetails = error.errors(include_url=False, include_context=True)[0]
    key = ".".join(str(part) for part in first["loc"])
    origin = (origins or {}).get(key, "")
    hint = f"it comes from {origin}" if origin and not origin.startswith("flag") else None
    if first["type"] == "extra_forbidden":
        return unknown_setting(key, kind, hint=hint)
    field = _field_at(kind, first["loc"])
    if field is None:
        return ConfigError(f"the settings are not a mapping from names to values{f' ({key})' if key else ''}", hint=hint)
    about = _about(field)
    name = f"{key} ({about['flag']})" if about.get("flag") else key
    if first["type"] == "missing":
        return ConfigError(f"the setting {name} is missing", hint=field.description)
    value = first["input"] if about.get("is_shown", True) and not isinstance(first["input"], Mapping) else None
    value = value if value is None or isinstance(value, str | int | float) else repr(value)
    if settings_in(field.annotation)[0] is not None:
        return ConfigError(f"{key} is not a mapping from names to values", hint=hint)
    return ConfigError(f"{name} {_reason(first['type'])}", value=value, allowed=_type_and_bounds(field), hint=hint)


def unknown_setting(key: str, kind: type[Settings], *, hint: str | None = None) -> ConfigError:
    """The error for a key that no setting has; the value stays out of it, as it may be a secret."""
    guess = nearest_key(key, kind)
    said = f"did you mean {guess}?" if guess else "`toolrec config schema COMMAND` lists those of a command"
    return ConfigError(f"unknown setting {key}", hint="; ".join(filter(None, (said, hint))))


def nearest_key(key: str, kind: type[Settings]) -> str | None:
    """The known key that is most like an unknown one."""
    from rapidfuzz import fuzz

    known = [*(one.key for one in declared_in(kind)), *branches_in(kind)]
    last = key.rpartition(".")[2]

    def similarity(candidate: str) -> float:
        own_name = fuzz.ratio(last, candidate.rpartition(".")[2])
        return max(fuzz.ratio(key, candidate), 0.95 * own_name)

    best = max(known, key=similarity, default=None)
    return best if best is not None and similarity(best) >= MIN_SIMILARITY else None


def _field_at(kind: type[Settings], place: Sequence[Any]) -> FieldInfo | None:
    inner: type[Settings] | None = kind
    field: FieldInfo | None = None
    is_by_name = False
    for part in place:
        if is_by_name:
            is_by_name = False
            continue
        if inner is None or part not in inner.model_fields:
            break
        field = inner.model_fields[part]
        inner, is_by_name = settings_in(field.annotation)
    return field


_REASONS = {
    "int": "is not a whole number",
    "float": "is not a number",
    "finite_number": "is not a finite number",
    "bool": "is neither true nor false",
    "string_type": "is not a text",
    "string_pattern_mismatch": "has another form",
    "path": "is not a path",
    "literal_error": "has no such value",
    "greater": "is out of range",
    "less": "is out of range",
    "none_required": "takes no value",
    "too_short": "is empty",
}


def _reason(code: str) -> str:
    return next((reason for start, reason in _REASONS.items() if code.startswith(start)), "has a value that it cannot have")


_TYPE_NAMES = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path"}


def _type_words(field: FieldInfo) -> str:
    kind, _ = _plain(field.annotation)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if kind == tuple[str, ...]:
        return "texts with commas between"
    if get_origin(kind) is dict:
        return "mapping"
    if kind is Any or get_origin(kind) in (Union, types.UnionType):
        return (
            "text"
            if kind is Any
            else " or ".join(_TYPE_NAMES.get(one, str(one)) for one in get_args(kind) if one is not type(None))
        )
    if settings_in(field.annotation)[0] is not None:
        return "mapping"
    return _TYPE_NAMES.get(kind, getattr(kind, "__name__", str(kind)))


_BOUNDS = {"ge": "{} or more", "gt": "above {}", "le": "at most {}", "lt": "below {}"}


def allowed_words(field: FieldInfo) -> str:
    """A setting's bounds in words; empty where there are none."""
    kind, takes_none = _plain(field.annotation)
    bounds = {name: bound for one in field.metadata for name in _BOUNDS if (bound := getattr(one, name, None)) is not None}
    words = ""
    if get_origin(kind) is Literal:
        words = ", ".join(map(str, get_args(kind)))
    elif kind is bool:
        words = "true or false"
    elif "ge" in bounds and "le" in bounds:
        words = f"{_number(bounds['ge'])} to {_number(bounds['le'])}"
    else:
        words = ", ".join(words.format(_number(bounds[name])) for name, words in _BOUNDS.items() if name in bounds)
    word = _about(field).get("none_word") or ("null" if takes_none else "")
    return f"{words}, or {word}" if words and word else words or (f"or {word}" if word else "")


def _type_and_bounds(field: FieldInfo) -> str:
    kind, _ = _plain(field.annotation)
    bounds = allowed_words(field)
    if get_origin(kind) is Literal or kind is bool:
        return bounds
    words = _type_words(field)
    article = "" if words.startswith("texts") else "a "
    if not bounds:
        return article + words
    return f"{article}{words}, {bounds}" if not bounds.startswith("or ") else f"{article}{words} {bounds}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
