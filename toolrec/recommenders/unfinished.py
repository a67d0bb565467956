"""An unfinished training's folder, beside the recommenders' to be: its settings and its members' states, to go on from"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolrec.errors import CheckpointError, ConfigError
from toolrec.files import locked, read_json, storage_errors, write_json
from toolrec.progress import stage
from toolrec.recommenders.fit_state import read_fields

SETTINGS = "training.json"
LOCK = ".lock"


class UnfinishedTraining:
    """Where the members of one training keep their states."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        logs = [read_fields(state)["log"] for state in self._states()]
        self.elapsed_s: float = sum(log[-1]["duration_s"] for log in logs)
        """Seconds that its members had trained when it was opened."""
        self.num_epochs = sum(len(log) for log in logs)
        """Epochs that they had done by then."""

    def state_of(self, member_folder: str) -> Path:
        """A member's state, by its place in the recommenders' folder."""
        return self.folder / f"{member_folder.replace('/', '-')}.safetensors"

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was trained yet."""
        return not self._states()

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("[!.]*.safetensors"))


def unfinished_folder(out: Path) -> Path:
    """Where the training of a recommenders' folder keeps what it has not finished."""
    return out.with_name(f"{out.name}.unfinished")


@contextlib.contextmanager
def unfinished(out: Path, settings: Mapping[str, Any], *, resume: bool, is_first: bool = True) -> Iterator[UnfinishedTraining]:
    """The folder of the training of `out`: kept on Ctrl-C, a kill or a full disk, gone when all is done.

    Args:
        settings: all that the result depends on.
        resume: go on with the one that is there, if there is one.
        is_first: whether this process minds the folder; the others of its group only read in it.

    Raises:
        CheckpointError: there is one and `resume` is not asked for, it is of other settings, or another process is at it.
    """
    folder = unfinished_folder(out)
    if not is_first:
        yield UnfinishedTraining(folder)
        return
    if folder.exists() and not resume:
        raise CheckpointError(
            "an unfinished training of these recommenders is there",
            value=str(folder),
            hint="--resume goes on with it; remove that folder to begin anew",
        )
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = locked(folder / LOCK)
        except BlockingIOError:
            raise CheckpointError("another process is training these recommenders", value=str(folder)) from None
    with lock:
        for leftover in out.parent.glob(f".{out.name}.*.tmp"):  # of a killed one
            shutil.rmtree(leftover)
        training = _opened(folder, settings)
        try:
            yield training
        except ConfigError:  # it came to nothing, and would again
            shutil.rmtree(folder)
            raise
        except BaseException as error:
            if training.is_untouched:
                shutil.rmtree(folder)
            elif isinstance(error, KeyboardInterrupt):
                stage("stopped: the same command with --resume goes on")
            raise
        shutil.rmtree(folder)


def _opened(folder: Path, settings: Mapping[str, Any]) -> UnfinishedTraining:
    place = folder / SETTINGS
    if not place.exists():
        write_json(place, settings)
    before = read_json(place, error=CheckpointError)
    names = [name for name in sorted({*before, *settings}) if before.get(name) != settings.get(name)]
    if names:
        said = "; ".join(f"{name} was {before.get(name)!r}, now {settings.get(name)!r}" for name in names)
        raise CheckpointError(
            f"the unfinished training has other settings: {said[:800]}",
            value=str(folder),
            hint="resume with its own, which its training.json has, or remove that folder to begin anew",
        )
    training = UnfinishedTraining(folder)
    if training.num_epochs:
        stage(f"going on after {training.num_epochs} epochs and {training.elapsed_s:.0f} s of training in {folder}")
    return training
