"""What an experiment is: points, each some settings of an evaluation, and what is shown of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolrec.config import CompleteConfig
from toolrec.errors import ConfigError
from toolrec.recommenders import recommenders_manifest

Axis = Mapping[str, Mapping[str, Any]]
"""By label the settings, by key, that an axis has there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One place of a grid: its label on every axis, and the settings by key that make it.

    `measurement` is what is trained or asked there, where no users are simulated.
    """

    labels: Mapping[str, str]
    settings: Mapping[str, Any]
    measurement: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The labels in one line."""
        return ", ".join(f"{axis} {label}" for axis, label in self.labels.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What an experiment's points may depend on.

    Args:
        config: the settings that all points share.
        is_smoke: whether a few points will do, as the experiment is only tried.
        endpoints: by label the settings of each LLM endpoint that is to be compared; None where no file gives any.
    """

    config: CompleteConfig
    endpoints: Axis | None = None
    is_smoke: bool = False

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that recommenders were trained for and that the run has tools of.

        Raises:
            ConfigError: there is none.
        """
        members = recommenders_manifest(self.config.recommenders)["members"]
        trained = [str(member["name"]) for member in members if member["kind"] == "attribute_encoder"]
        kept = self.config.tools.attributes
        found = tuple(name for name in trained if kept is None or name in kept)
        if not found:
            raise ConfigError("this experiment needs a recommender that was trained for an attribute", allowed=trained)
        return found

    def few(self, values: Sequence[Any]) -> list[Any]:
        """The values; in a smoke test the first and the last."""
        return [values[0], values[-1]] if self.is_smoke and len(values) > 2 else list(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A named grid.

    Args:
        name: as on the command line.
        question: what it answers, one sentence.
        varies: what its points are, one sentence.
        points: gives them. The first one is what the others are compared to, user by user.
        within: an axis; each point is compared to the first one that has its label there.
        measures: what is shown beside quality, of `toolrec.experiments.measures.MEASURES`.
        has_recommenders: whether the recommenders without an LLM have rows too.
    """

    name: str
    question: str
    varies: str
    points: Callable[[Ground], list[Point]]
    measures: tuple[str, ...] = field(default=("finished", "mean_rounds", "tool_calls", "reasks", "tokens"))
    has_recommenders: bool = False
    within: str | None = None


def setting_axis(key: str, values: Sequence[Any]) -> Axis:
    """An axis over the values of one setting."""
    return {label_of(value): {key: value} for value in values}


def label_of(value: Any) -> str:
    """A setting's value as a label."""
    if value is None:
        return "none"
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value)) or "(none)"
    return f"{value:g}" if isinstance(value, float) else str(value)


def product(axes: Mapping[str, Axis]) -> list[Point]:
    """Every combination of the axes' labels, the last axis fastest.

    Raises:
        ConfigError: two axes give the same setting.
    """
    points = []
    for labels in itertools.product(*axes.values()):
        settings: dict[str, Any] = {}
        for (name, axis), label in zip(axes.items(), labels, strict=True):
            for key, value in axis[label].items():
                if key in settings:
                    raise ConfigError("two axes give the same setting", value=f"{key} (axis {name})")
                settings[key] = value
        points.append(Point(labels=dict(zip(axes, labels, strict=True)), settings=settings))
    return points
