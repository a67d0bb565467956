"""Search spaces: what a sweep draws its trials' settings from, as values that a protocol can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from toolrec.errors import ConfigError
from toolrec.recommenders import FitConfig, RecommendersConfig, TransformerConfig

DomainKind = Literal["loguniform", "uniform", "choice"]

_OF_TRANSFORMER = {field.name for field in fields(TransformerConfig)}
_OF_FIT = {field.name for field in fields(FitConfig)} - {"max_epochs", "patience", "max_validation_users"}
_OF_BOTH = {"num_buckets", "mask_share"}
PARAMETERS = frozenset(_OF_TRANSFORMER | _OF_FIT | _OF_BOTH)
"""What can be searched. Epochs and patience are the sweep's, and all trials are validated on the same users."""

_TYPES = {
    name: kind for part in (TransformerConfig, FitConfig, RecommendersConfig) for name, kind in get_type_hints(part).items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """Where one parameter is drawn from.

    Args:
        kind: `loguniform` and `uniform` have two `values`, lowest and highest; `choice` has those to choose from.
    """

    kind: DomainKind
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if self.kind == "choice":
            if not self.values:
                raise ConfigError("a choice needs values to choose from", value=list(self.values))
            return
        if self.kind not in ("loguniform", "uniform"):
            raise ConfigError("unknown kind of search domain", value=self.kind, allowed=["loguniform", "uniform", "choice"])
        lowest = 0.0 if self.kind == "loguniform" else -math.inf
        is_number = len(self.values) == 2 and all(isinstance(value, int | float) for value in self.values)
        if not is_number or not lowest < self.values[0] < self.values[1] < math.inf:
            raise ConfigError(
                f"a {self.kind} domain has two numbers, the lowest first", value=list(self.values), allowed="[0.001, 0.01]"
            )


Space = Mapping[str, Domain]


def encoder_space() -> dict[str, Domain]:
    """Attribute encoders: small, so that what decides is how fast and how long they learn."""
    return {
        "learning_rate": Domain(kind="loguniform", values=(3e-4, 1e-2)),
        "dropout": Domain(kind="uniform", values=(0.0, 0.5)),
        "width": Domain(kind="choice", values=(16, 32, 64)),
        "num_layers": Domain(kind="choice", values=(1, 2)),
        "num_buckets": Domain(kind="choice", values=(8, 16, 32)),
        "batch_size": Domain(kind="choice", values=(32, 64, 128)),
    }


def backbone_space() -> dict[str, Domain]:
    """Backbones: width and depth decide the time of an epoch, the rest how much it brings."""
    return {
        "learning_rate": Domain(kind="loguniform", values=(3e-4, 1e-2)),
        "dropout": Domain(kind="uniform", values=(0.0, 0.5)),
        "width": Domain(kind="choice", values=(64, 128, 192)),
        "num_layers": Domain(kind="choice", values=(1, 2, 3)),
        "batch_size": Domain(kind="choice", values=(16, 32, 64)),
    }


def read_space(path: Path) -> dict[str, Domain]:
    """A space from a YAML file of lines such as `learning_rate: {loguniform: [0.0003, 0.01]}`.

    Raises:
        ConfigError: the file is missing or no such mapping, or names an unknown parameter or kind.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"the search space cannot be read ({error})", value=str(path)) from None
    if not isinstance(content, dict) or not content:
        raise ConfigError("the search space is no mapping from parameters to domains", value=str(path))
    space = {}
    for name, domain in content.items():
        if not isinstance(domain, dict) or len(domain) != 1 or not isinstance(next(iter(domain.values())), list):
            raise ConfigError(f"the domain of {name} cannot be read", value=domain, allowed="{choice: [16, 32]}")
        [(kind, values)] = domain.items()
        space[str(name)] = Domain(kind=kind, values=tuple(values))
    check_space(space)
    return space


def check_space(space: Space) -> None:
    """Refuses parameters that no training has, and values of another type than theirs.

    Raises:
        ConfigError: there is one.
    """
    for name, domain in space.items():
        if name not in PARAMETERS:
            raise ConfigError("unknown parameter in the search space", value=name, allowed=sorted(PARAMETERS))
        kind = _TYPES[name]
        if domain.kind != "choice" and kind is not float:
            raise ConfigError(f"{name} has no values between two others", value=domain.kind, allowed="{choice: [16, 32]}")
        for value in domain.values:
            if not _is_of(value, kind):
                raise ConfigError(f"{name} has values of another type", value=value, allowed=_in_words(kind))


def _is_of(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(value, bool):
        return bool(kind == bool | None)
    return isinstance(value, int | float if kind is float else kind)


def _in_words(kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if isinstance(kind, UnionType):
        return "true, false or null"
    return "a number" if kind is float else "a whole number"


def space_to_json(space: Space) -> dict[str, Any]:
    """A space as a protocol holds it."""
    return {name: asdict(domain) for name, domain in space.items()}


def space_from_json(content: Mapping[str, Any]) -> dict[str, Domain]:
    """A space from its protocol."""
    return {name: Domain(kind=domain["kind"], values=tuple(domain["values"])) for name, domain in content.items()}


def with_params(base: RecommendersConfig, params: Mapping[str, Any], *, is_backbone: bool) -> RecommendersConfig:
    """A training's config with one trial's parameters in it.

    Raises:
        ConfigError: a parameter is out of range.
    """
    transformer, fit = ("backbone", "backbone_fit") if is_backbone else ("encoder", "encoder_fit")
    members = {
        transformer: replace(getattr(base, transformer), **_within(params, _OF_TRANSFORMER)),
        fit: replace(getattr(base, fit), **_within(params, _OF_FIT)),
    }
    return replace(base, **members, **_within(params, _OF_BOTH))


def _within(params: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name in names}
