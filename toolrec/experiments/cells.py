"""The cells of an experiment: each point, with each training of the recommenders, as often as it is repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolrec.config import CompleteConfig, RunConfig
from toolrec.errors import ConfigError
from toolrec.experiments.grid import Point
from toolrec.util.settings_sources import Layer, flattened, resolve
from toolrec.util.slug import slug

CELLS = "cells"
CACHE = "cache"
OF_THE_GRID = ("run", "resume", "stores.cache", "stores.record")
"""Settings that the experiment gives every cell itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One evaluation of a grid; `config` has its run folder."""

    number: int
    point: Point
    training: str
    repeat: int
    config: CompleteConfig

    @property
    def folder(self) -> Path:
        return self.config.run

    @property
    def name(self) -> str:
        """The point, and what tells its cells apart."""
        return ", ".join(filter(None, (self.point.name, self.training, f"repeat {self.repeat}" if self.repeat > 1 else "")))


def cells_of(
    points: Sequence[Point], config: CompleteConfig, folder: Path, *, repeats: int = 1, trainings: Sequence[Path] = ()
) -> list[Cell]:
    """All cells, in the order in which they run: every point before the next repeat, so that an early stop leaves whole ones.

    Raises:
        ConfigError: a point has a setting that there is not, of another type or out of bounds.
    """
    base = flattened(RunConfig, config.as_json())
    folders = list(trainings) or [config.recommenders]
    names = training_names(folders) if trainings else [""]
    cells: list[Cell] = []
    for repeat in range(1, repeats + 1):
        for training, recommenders in zip(names, folders, strict=True):
            for point in points:
                number = len(cells) + 1
                parts = (f"{number:03d}", slug(point.name)[:80], slug(training), f"repeat-{repeat}" if repeats > 1 else "")
                given = {
                    "run": str(folder / CELLS / "-".join(filter(None, parts))),
                    "resume": False,
                    "recommenders": str(recommenders),
                    **({} if config.stores.replay is not None else {"stores.cache": base["stores.cache"] or str(folder / CACHE)}),
                    **(_seeds(config, repeat) if repeats > 1 else {}),
                }
                cells.append(
                    Cell(
                        number=number,
                        point=point,
                        training=training,
                        repeat=repeat,
                        config=_resolved(base, given, point),
                    )
                )
    return cells


def _seeds(config: CompleteConfig, repeat: int) -> dict[str, Any]:
    """Of what may differ between two repeats: the LLM's sampling, and what is spoilt. The users stay the same."""
    return {"llm.seed": (config.llm.seed or 0) + repeat - 1, "stress.seed": config.stress.seed + repeat - 1}


def _resolved(base: Mapping[str, Any], given: Mapping[str, Any], point: Point) -> CompleteConfig:
    taken = next((key for key in point.settings if key in OF_THE_GRID), None)
    if taken is not None:
        raise ConfigError("an experiment gives this setting to its cells itself", value=taken)
    layers = [Layer("the experiment", {**base, **given}), Layer(lambda key: f"axis {_axis_of(point, key)}", point.settings)]
    settings: RunConfig = resolve(RunConfig, layers).settings
    return settings.completed()


def _axis_of(point: Point, key: str) -> str:
    """How the axis of a setting is called, for an error."""
    return key if key in point.labels or len(point.labels) != 1 else f"{next(iter(point.labels))} ({key})"


def training_names(folders: Sequence[Path]) -> list[str]:
    """A name for each recommenders' folder: its own, with those above it where two are the same.

    Raises:
        ConfigError: a folder is given twice.
    """
    absolute = [folder.absolute() for folder in folders]
    twice = next((folder for folder in absolute if absolute.count(folder) > 1), None)
    if twice is not None:
        raise ConfigError("--trainings gives a folder twice", value=str(twice))
    depth = 1
    while len({folder.parts[-depth:] for folder in absolute}) < len(absolute):
        depth += 1
    return ["/".join(folder.parts[-depth:]) for folder in absolute]


def plan_of(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """What must be the same for an experiment to be resumed: every cell's labels and the settings that change its results."""
    return [
        {
            "folder": f"{CELLS}/{cell.folder.name}",
            "labels": dict(cell.point.labels),
            "training": cell.training,
            "repeat": cell.repeat,
            "settings": {name: value for name, value in cell.config.result_settings().items() if value is not None},
            **({} if cell.point.measurement is None else {"measurement": dict(cell.point.measurement)}),
        }
        for cell in cells
    ]
