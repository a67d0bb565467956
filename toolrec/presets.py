"""Presets: other people's choices as settings, below everything that is given and above the defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toolrec.util.settings_sources import Layer

COMPAT: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "authors": {
        "evaluation": {"users": 200},
        "surrogate": {
            "protocol": "text",
            "rounds": 7,
            "list_length": 10,
            "prompt_history_length": 10,
            "mask_seen": False,
            "finish_policy": "final_rank",
        },
    }
}
"""By the word of `--compat`. `authors`: what the published code of ToolRec (arXiv 2405.15114) does; its trainings are recipes."""

AUTHORS_LOSS, AUTHORS_HISTORY_LENGTH = "bpr", 50


def preset_layers(known: Mapping[str, Any]) -> list[Layer]:
    """The preset below what is known of a run's settings, by key; a word that names none is left for validation to refuse."""
    name = str(known.get("compat"))
    return [Layer(f"preset --compat {name}", COMPAT[name])] if name in COMPAT else []


def with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a run's settings with the preset that they name below them; a branch that is settings already is whole."""
    completed = dict(values)
    for branch, chosen in COMPAT.get(str(values.get("compat")), {}).items():
        given = values.get(branch)
        if given is None or isinstance(given, Mapping):
            completed[branch] = {**chosen, **(given or {})}
    return completed


def unlike_the_authors(compat: str | None, recommenders: Mapping[str, Any]) -> Iterator[str]:
    """A note where a run with the authors' choices has recommenders that were trained otherwise.

    Args:
        compat: the run's preset.
        recommenders: the manifest of the recommenders' folder.
    """
    if compat != "authors":
        return
    config = recommenders.get("config") or {}
    loss = (config.get("backbone_fit") or {}).get("loss")
    length = recommenders.get("model_history_length")
    if (loss, length) != (AUTHORS_LOSS, AUTHORS_HISTORY_LENGTH):
        yield (
            f"--compat authors, but the recommenders were trained with loss {loss} on histories of {length}; the authors' have "
            f"{AUTHORS_LOSS} on {AUTHORS_HISTORY_LENGTH}: `toolrec train --recipe sasrec_authors`"
        )
