"""An unfinished training's folder, beside the recommenders' to be: its settings and its members' states, to go on from."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolrec.errors import CheckpointError
from toolrec.recommenders.training.fit_state import read_fields
from toolrec.util.files import differences, locked, read_json, storage_errors, write_json
from toolrec.util.progress import stage

SETTINGS = "training.json"
LOCK = ".lock"
MEMBERS = "recommenders"


class UnfinishedTraining:
    """Where the members of one training keep their states, and where the recommenders' folder grows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logs = {state: read_fields(state)["log"] for state in self._states()}

    @property
    def members(self) -> Path:
        """The recommenders' folder until it is whole; it is made anew in every session."""
        return self._folder / MEMBERS

    def state_of(self, member_folder: str) -> Path:
        """A member's state, by its place in the recommenders' folder."""
        return self._folder / f"{member_folder.replace('/', '-')}.safetensors"

    def elapsed_s(self, member_folder: str | None = None) -> float:
        """Seconds that a member had trained when this was opened; all members for None."""
        logs = self._logs.values() if member_folder is None else [self._logs.get(self.state_of(member_folder), ())]
        return float(sum(log[-1]["duration_s"] for log in logs if log))

    @property
    def num_epochs(self) -> int:
        """Epochs that all members had done when this was opened."""
        return sum(len(log) for log in self._logs.values())

    @property
    def is_untouched(self) -> bool:
        """Whether nothing is trained yet."""
        return not self._states()

    def _states(self) -> list[Path]:
        return list(self._folder.glob("[!.]*.safetensors"))


@contextlib.contextmanager
def unfinished(out: Path, settings: Mapping[str, Any], *, resume: bool, is_first: bool = True) -> Iterator[UnfinishedTraining]:
    """The folder of the training of `out`: gone when all is done, kept on any other way out once something is trained.

    Args:
        settings: all that the result depends on.
        resume: go on with the one that is there, if there is one.
        is_first: whether this process minds the folder; the others of its group only read in it.

    Raises:
        CheckpointError: there is one and `resume` is not asked for, it is of other settings or no training's folder, or
            another process is at it.
    """
    folder = out.with_name(f"{out.name}.unfinished")
    if not is_first:
        yield UnfinishedTraining(folder)
        return
    is_new = not folder.exists()
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = locked(folder / LOCK)
        except BlockingIOError:
            raise CheckpointError("another process is training these recommenders", value=str(folder)) from None
    with lock:
        if is_new:
            try:
                write_json(folder / SETTINGS, settings)
            except BaseException:
                _remove(folder)
                raise
        training = _opened(folder, settings, resume=resume or is_new)
        try:
            yield training
        except BaseException:
            if training.is_untouched:
                _remove(folder)
            else:
                stage(f"what is trained so far is kept in {folder}: the same command with --resume goes on")
            raise
        _remove(folder)


def _opened(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> UnfinishedTraining:
    anew = f"remove {folder} to begin anew"
    if not (folder / SETTINGS).exists():
        raise CheckpointError("this folder is in the way, and is no unfinished training", value=str(folder), hint=anew)
    if not resume:
        hint = f"--resume goes on with it; {anew}"
        raise CheckpointError("an unfinished training of these recommenders is there", value=str(folder), hint=hint)
    before = read_json(folder / SETTINGS, error=CheckpointError)
    said = differences(before, settings)
    if said:
        raise CheckpointError(
            f"the unfinished training has other settings: {said}", value=str(folder), hint=f"resume with its own; {anew}"
        )
    # What a kill left half written.
    shutil.rmtree(folder / MEMBERS, ignore_errors=True)
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink()
    training = UnfinishedTraining(folder)
    if training.num_epochs:
        stage(f"going on after {training.num_epochs} epochs and {training.elapsed_s():.0f} s of training in {folder}")
    return training


def _remove(folder: Path) -> None:
    """Removes it whole: a kill on the way leaves nothing that could be taken for a training."""
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.old")
    folder.replace(old)
    shutil.rmtree(old)
