"""The public functions `prepare` and `evaluate`: what the commands of these names do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from toolrec.config import RunConfig
from toolrec.data import Dataset, load_dataset
from toolrec.errors import ConfigError
from toolrec.runs.run import Run, load_run
from toolrec.util.settings_sources import Layer, resolve
from toolrec.util.urls import place_of


def prepare(name: str = "own", *, out: str | Path | None = None, overwrite: bool = False, **settings: Any) -> Dataset:
    """Turns a source into a data set folder: filters, order, leave-one-out split, item pool.

    Args:
        name: a known source (`toolrec data list`), `recbole`, `demo`, or `own` for files of your own.
        out: data set folder to write; `data/NAME` if not given.
        overwrite: replaces another data set that is at `out`.
        settings: what the flags of `toolrec data prepare` set, by name with underscores. `interactions` and `items` can
            be pandas frames too.

    Raises:
        ConfigError: a setting is unknown, wrong, or does not fit the source.
        DataError: the source cannot be read, nothing is left of it, or something else is at `out`.
        StorageError: `out` cannot be written.

    Examples:
        >>> toolrec.prepare("demo", out="data/demo", users=300)
        >>> toolrec.prepare(interactions="clicks.csv", items="books.csv", out="data/books", k_core_users=5)
    """
    from toolrec.data.options import default_name, load_settings
    from toolrec.data.prepare import prepare as prepare_source
    from toolrec.data.sources import SOURCES, read_source
    from toolrec.data.store import refuse_other_folder

    if name not in SOURCES:
        raise ConfigError("unknown source", value=name, allowed=SOURCES)
    paths = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
    chosen = load_settings(None, paths)
    folder = place_of(out) if out is not None else Path("data") / default_name(name, chosen)
    refuse_other_folder(folder)  # before any download
    prepare_source(
        read_source(chosen.source_config(name)),
        folder,
        filters=chosen.filter_config(name),
        attributes=chosen.attribute_names,
        split=chosen.split_config(),
        plain_titles=chosen.plain_titles,
        overwrite=overwrite,
    )
    return load_dataset(folder)


def evaluate(config: RunConfig | Mapping[str, Any]) -> Run:
    """Simulates users, scores their lists and the recommenders', and writes the run folder.

    Works in a notebook too: interrupting the cell ends the run cleanly, and `resume` continues it. Ctrl-C in a script
    does the same.

    Args:
        config: the settings, or a mapping of them, nested or with keys as in `surrogate.rounds`. Relative paths start at
            the working folder. Of the environment, only the LLM's key is read.

    Raises:
        InputError: something given is wrong; nothing was written.
        LLMError: the endpoint cannot be used.
        RunStoppedError: the run ended early; it can be resumed.
        StorageError: the disk is full; the run can be resumed.

    Examples:
        >>> run = toolrec.evaluate({"dataset": "data/demo", "evaluation.users": 100, "tools.mode": "local"})
    """
    from toolrec.pipeline import run_evaluation
    from toolrec.simulation.stopping import Stopping

    if not isinstance(config, RunConfig):
        config = resolve(RunConfig, [Layer("the call", config)]).settings
    if not _is_in_event_loop():
        return load_run(run_evaluation(config)[1])
    # A notebook's thread already runs an event loop: the run gets a thread of its own.
    stopping = Stopping()
    with ThreadPoolExecutor(1, thread_name_prefix="toolrec-evaluate") as thread:
        running = thread.submit(run_evaluation, config, stopping=stopping)
        try:
            return load_run(running.result()[1])
        except KeyboardInterrupt:
            stopping.ask()
            raise


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
