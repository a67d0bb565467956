"""A user's own grid, and the endpoints of the experiment `llms`, from YAML files.

base:                          # settings of `toolrec evaluate`, nested or by key
  evaluation.users: 200
axes:
  surrogate.rounds: [3, 5, 7]  # a setting's values
  model:                       # or labels, and the settings of each
    small: {llm.base_url: "http://127.0.0.1:8000/v1", llm.model: small}
    large: {llm.base_url: "http://127.0.0.1:8001/v1", llm.model: large}
repeats: 3
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolrec.config import RunConfig
from toolrec.errors import ConfigError
from toolrec.experiments.grid import Axis, Point, label_of, product, setting_axis
from toolrec.util.settings import declared_in, unknown_setting
from toolrec.util.settings_sources import flattened, read_mapping

KEYS = ("base", "axes", "repeats")
MAX_POINTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnGrid:
    """What a grid's file says."""

    base: Mapping[str, Any]
    points: tuple[Point, ...]
    repeats: int


def read_grid(path: Path) -> OwnGrid:
    """Reads a grid.

    Raises:
        ConfigError: it cannot be read, has no axes, or names a setting that there is not.
    """
    content = read_mapping(path, what="the grid")
    unknown = next((key for key in content if key not in KEYS), None)
    if unknown is not None:
        raise ConfigError("the grid has an unknown part", value=unknown, allowed=KEYS, hint=str(path))
    base, axes, repeats = content.get("base") or {}, content.get("axes"), content.get("repeats", 1)
    if not isinstance(base, Mapping):
        raise ConfigError("`base` of the grid is not a mapping from settings to values", hint=str(path))
    if not isinstance(axes, Mapping) or not axes:
        raise ConfigError("the grid has no axes", allowed="`axes:`, a mapping from settings to lists of values", hint=str(path))
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise ConfigError("`repeats` of the grid is not a whole number from 1", value=repr(repeats), hint=str(path))
    read = {str(name): _axis(str(name), values) for name, values in axes.items()}
    num_points = 1
    for axis in read.values():
        num_points *= len(axis)
    if num_points > MAX_POINTS:
        raise ConfigError("the grid has too many points", value=num_points, allowed=f"up to {MAX_POINTS}")
    return OwnGrid(base=flattened(RunConfig, base), points=tuple(product(read)), repeats=repeats)


def _axis(name: str, values: Any) -> Axis:
    if isinstance(values, Mapping) and values:
        return {str(label): _settings(f"{name}, {label}", settings) for label, settings in values.items()}
    if not isinstance(values, list) or not values:
        raise ConfigError(
            "an axis is neither a list of values nor a mapping from labels to settings", value=name, hint="as in [3, 5, 7]"
        )
    known = {one.key for one in declared_in(RunConfig)}
    if name not in known:
        raise unknown_setting(name, RunConfig, hint="an axis is named by the key of its setting, or has labels")
    axis = setting_axis(name, values)
    if len(axis) != len(values):
        raise ConfigError("an axis has a value twice", value=name, allowed=[label_of(value) for value in values])
    return axis


def _settings(where: str, settings: Any) -> Mapping[str, Any]:
    if settings is not None and not isinstance(settings, Mapping):
        raise ConfigError("a label of an axis has no mapping from settings to values", value=where)
    return flattened(RunConfig, settings or {})


def read_endpoints(path: Path) -> Axis:
    """The endpoints of a file: by label the settings of the branch `llm`, as `base_url` and `model`.

    Raises:
        ConfigError: it cannot be read, or names none.
    """
    content = read_mapping(path, what="the endpoints")
    if not content:
        raise ConfigError("the file of endpoints names none", value=str(path), hint="as in `small: {base_url: …, model: …}`")
    found: dict[str, Mapping[str, Any]] = {}
    for label, settings in content.items():
        if not isinstance(settings, Mapping):
            raise ConfigError("an endpoint is not a mapping from settings to values", value=str(label), hint=str(path))
        found[str(label)] = {key if "." in key else f"llm.{key}": value for key, value in settings.items()}
    return found
