"""A run folder as data frames and traces, also while the run goes on. Needs neither Ray nor torch."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from toolrec.data import Dataset, load_dataset
from toolrec.errors import ConfigError, DataError, RunFolderError, StorageError
from toolrec.llm.prices import Price, price_from_json
from toolrec.records import FINISHED, Trace, Usage
from toolrec.runs.folder import SUMMARY, is_at_work, read_manifest, read_rounds, read_spend, read_trace, read_users
from toolrec.runs.ledger import ledger_of
from toolrec.runs.mirror import readable_run
from toolrec.runs.rows import sum_of_usage
from toolrec.util.files import read_json
from toolrec.util.urls import place_of

if TYPE_CHECKING:
    from toolrec.evaluation.notebook import RunPlots

Status = Literal["running", "complete", "interrupted"]

_SPENT_TYPES = {"num_llm_calls": "int64", "prompt_tokens": "int64", "completion_tokens": "int64", "cost_usd": "float64"}
SUMMARY_TYPES = {
    "recommender": "str",
    "label": "str",
    "metric": "str",
    "mean": "float64",
    "low": "float64",
    "high": "float64",
    "num_users": "int64",
    "mean_finished": "float64",
    "num_finished": "int64",
    "difference_to_backbone": "float64",
    "p_value_to_backbone": "float64",
    "p_value_holm_to_backbone": "float64",
    "difference_to_fusion": "float64",
    "p_value_to_fusion": "float64",
    "p_value_holm_to_fusion": "float64",
}
USER_TYPES = {
    "user_index": "int32",
    "user_id": "str",
    "attempt": "int16",
    "ended_by": "str",
    "is_finished": "bool",
    "failure_kind": "str",
    "http_status": "Int16",
    "error": "str",
    "final_items": "object",
    "completed_items": "object",
    "num_candidates": "int64",
    "num_rounds": "int16",
    "num_tool_calls": "int16",
    **_SPENT_TYPES,
    "counts": "object",
    "started_s": "float64",
    "ended_s": "float64",
}
ROUND_TYPES = {
    "user_index": "int32",
    "user_id": "str",
    "round": "int16",
    "thought": "str",
    "action": "str",
    "attribute": "str",
    "k": "Int64",
    "observation": "str",
    "error": "str",
    "failure_kind": "str",
    "http_status": "Int16",
    "items": "object",
    "scores": "object",
    **_SPENT_TYPES,
    "counts": "object",
    "duration_s": "float64",
}
SPEND_TYPES = {
    "user_index": "int64",
    "attempt": "int64",
    "round": "int64",
    "purpose": "str",
    "tool": "str",
    **{field.name: "int64" for field in fields(Usage)},
    "is_void": "bool",
}
"""Columns of the run's frames and their types; `Run`'s docstrings say what they hold."""


def load_run(path: str | Path) -> Run:
    """Opens a run folder for reading.

    Args:
        path: the folder that `toolrec evaluate` wrote, or is writing, or its URL. Of a URL a copy is read, with what is
            there now.

    Raises:
        RunFolderError: there is no run in it, it is damaged, or it is of another version's layout; or the URL cannot be read.
    """
    place = place_of(path)
    return Run(readable_run(place), place=place)


def find_dataset(run: Run, folder: Path | None = None) -> tuple[Dataset | None, str]:
    """The data set of a run as it is stored, or why there is none: it is gone, or another one by now.

    Args:
        folder: where it is; None for where the manifest says.
    """
    path = folder or place_of(run.manifest["dataset"]["path"])
    try:
        found = load_dataset(path)
    except (DataError, ConfigError, StorageError) as error:  # the latter two: of a URL, which a run may name
        return None, str(error)
    if found.checksum != run.manifest["settings"]["dataset_checksum"]:
        return None, f"the data set is another one by now ({path})"
    return found, ""


class Run:
    """A run, read from its folder. Made by `load_run`.

    A frame is read when it is first asked for, and kept. Of a run that goes on, or was interrupted, it has the users that
    had ended by then: call `load_run` again to see more.

    Attributes:
        path: the run folder; of a URL the copy that is read.
        place: what `load_run` was given.
        manifest: what was run, as in `manifest.json`.
        price: what the model costs, as known when the run was started; None where no price was given.
    """

    def __init__(self, path: Path, *, place: Path | None = None) -> None:
        self.path = path
        self.place = place or path
        self.manifest: dict[str, Any] = read_manifest(path)
        self.price: Price | None = stored_price(self.manifest)

    def __repr__(self) -> str:
        return f"Run({str(self.place)!r}, status={self.status!r}, users={len(self._users)})"

    def _repr_html_(self) -> str:
        from toolrec.evaluation.notebook import run_html

        return run_html(self)

    @property
    def plot(self) -> RunPlots:
        """The run's plots, as in `run.plot.metrics()`: `metrics`, `differences`, `rounds`, `tools` and `ceiling`.

        Jupyter shows a plot by itself; its `save(path)` writes SVG, PNG or PDF, and `figure()` gives the matplotlib figure.

        Raises:
            RunFolderError: the run has no figures yet.
        """
        from toolrec.evaluation.notebook import RunPlots

        return RunPlots(self.summary_json)

    @property
    def status(self) -> Status:
        """`running` while a process works on it, `complete` when it has figures, else `interrupted` (`--resume` goes on)."""
        if is_at_work(self.path):
            return "running"
        return "complete" if (self.path / SUMMARY).is_file() else "interrupted"

    @cached_property
    def summary_json(self) -> dict[str, Any]:
        """All figures of the run, as in `summary.json`.

        Raises:
            RunFolderError: there are none yet, or the file is damaged.
        """
        if not (self.path / SUMMARY).is_file():
            raise RunFolderError(
                "the run has no figures yet", value=str(self.path), hint="finish it with `toolrec evaluate … --run … --resume`"
            )
        summary: Any = read_json(self.path / SUMMARY, error=RunFolderError)
        if not isinstance(summary, dict):
            raise RunFolderError(f"{SUMMARY} is damaged", value=str(self.path))
        return summary

    @cached_property
    def summary(self) -> pd.DataFrame:
        """The figures: one row for each recommender and metric; no rows until the run is complete.

        Every user counts, a failed one as a miss. Metrics are `recall@k`, `ndcg@k` and `mrr@k` (0 to 1) for k of 5, 10, 20,
        as far as a recommender's lists reach. `surrogate_completed` is the surrogate with its empty slots filled from memory.

        | column | type | meaning |
        | --- | --- | --- |
        | `recommender` | str | `surrogate`, `surrogate_completed`, `backbone`, `attribute:NAME`, `fusion`, … |
        | `label` | str | the recommender's name in tables |
        | `metric` | str | as in `ndcg@10` |
        | `mean` | float64 | over all users |
        | `low` | float64 | lower end of its 95 % interval; `summary_json["statistics"]` says how it is made |
        | `high` | float64 | upper end of it |
        | `num_users` | int64 | all users |
        | `mean_finished` | float64 | over the users whose surrogate finished |
        | `num_finished` | int64 | these users |
        | `difference_to_backbone` | float64 | mean of the paired difference; NaN for the backbone itself |
        | `p_value_to_backbone` | float64 | of its permutation test |
        | `p_value_holm_to_backbone` | float64 | corrected over the comparisons of the run's table (Holm) |
        | `difference_to_fusion` | float64 | the same against reciprocal rank fusion of the tools |
        | `p_value_to_fusion` | float64 | of its permutation test |
        | `p_value_holm_to_fusion` | float64 | corrected likewise |

        Raises:
            RunFolderError: `summary.json` is damaged.
        """
        figures = self.summary_json if (self.path / SUMMARY).is_file() else {}
        try:
            rows = list(_figures(figures))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RunFolderError(f"{SUMMARY} is damaged ({error!r})", value=str(self.path / SUMMARY)) from None
        return _frame({name: [row[name] for row in rows] for name in SUMMARY_TYPES}, SUMMARY_TYPES)

    @cached_property
    def users(self) -> pd.DataFrame:
        """One row for each user that has ended, by `user_index`.

        | column | type | meaning |
        | --- | --- | --- |
        | `user_index` | int32 | the user's number in the data set, from 1 |
        | `user_id` | str | the user's id in the data set |
        | `attempt` | int16 | from 1; more where a process was lost |
        | `ended_by` | str | `finish`, `forced_finish`, `budget`, `llm_failure`, `invalid_reply`, `cancelled` |
        | `is_finished` | bool | whether the surrogate finished; otherwise the user counts as a miss |
        | `failure_kind` | str | why it failed, as in `refused`, `token_budget`, `tool_lost`; missing if it finished |
        | `http_status` | Int16 | of the endpoint's answer behind a failure; missing where there was none |
        | `error` | str | the failure in words |
        | `final_items` | object | list of item indexes as given, best first; 0 for an empty slot |
        | `completed_items` | object | the same, filled from memory |
        | `num_candidates` | int64 | different items that the tools brought into memory |
        | `num_rounds` | int16 | decisions |
        | `num_tool_calls` | int16 | decisions that called a tool |
        | `num_llm_calls` | int64 | completed calls of the LLM |
        | `prompt_tokens` | int64 | tokens of prompts, cached ones included |
        | `completion_tokens` | int64 | tokens of replies |
        | `cost_usd` | float64 | dollars; NaN where no price is known |
        | `counts` | object | dict of counters by kind, as in `reask`, `memory_unknown` |
        | `started_s` | float64 | seconds since the epoch |
        | `ended_s` | float64 | seconds since the epoch |
        """
        stored = self._users
        return _frame(
            {
                **stored,
                "is_finished": stored["ended_by"].isin(sorted(FINISHED)),
                "final_items": _lists(stored["final_items"]),
                "completed_items": _lists(stored["completed_items"]),
                "num_candidates": [len({entry["item_index"] for entry in entries}) for entries in stored["candidates"]],
                "counts": _counts(stored["counts"]),
                **self._spent(stored["usage"]),
            },
            USER_TYPES,
        )

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """One row for each round of a user in `users`, by `user_index` and `round`.

        | column | type | meaning |
        | --- | --- | --- |
        | `user_index` | int32 | as in `users` |
        | `user_id` | str | as in `users` |
        | `round` | int16 | from 1 |
        | `thought` | str | what the surrogate wrote before its action |
        | `action` | str | `retrieve`, `rank` or `finish`; missing where no action could be read |
        | `attribute` | str | that the tool was oriented to; missing for the plain backbone |
        | `k` | Int64 | items asked for; missing where the surrogate named no number |
        | `observation` | str | what it was answered |
        | `error` | str | why the tool call or the round failed, in words; missing where it did not |
        | `failure_kind` | str | of a round that ended the user, as in `users` |
        | `http_status` | Int16 | likewise |
        | `items` | object | list of the item indexes that the tool returned, best first |
        | `scores` | object | list of their scores |
        | `num_llm_calls` | int64 | completed calls of the LLM, re-asks and ranking included |
        | `prompt_tokens` | int64 | tokens of prompts, cached ones included |
        | `completion_tokens` | int64 | tokens of replies |
        | `cost_usd` | float64 | dollars; NaN where no price is known |
        | `counts` | object | dict of counters by kind |
        | `duration_s` | float64 | seconds, without waiting for limits of the run's own |
        """
        ended = self._users[["user_index", "user_id", "attempt"]]
        stored = read_rounds(self.path).merge(ended, on=["user_index", "attempt"])
        stored = stored[stored["round"] > 0].reset_index(drop=True)
        calls = [json.loads(call) if isinstance(call, str) and call else {} for call in stored["call"]]
        return _frame(
            {
                **stored,
                "action": [call.get("name") for call in calls],
                "attribute": [call.get("attribute") for call in calls],
                "k": [call.get("k") for call in calls],
                "observation": stored["observation_text"],
                "error": stored["observation_error"],
                "items": _lists(stored["items"]),
                "scores": _lists(stored["scores"]),
                "counts": _counts(stored["counts"]),
                **self._spent(stored["usage"]),
            },
            ROUND_TYPES,
        )

    @cached_property
    def spend(self) -> pd.DataFrame:
        """The ledger: what was spent, one row for each round of each attempt and purpose, users in flight included.

        | column | type | meaning |
        | --- | --- | --- |
        | `user_index` | int64 | as in `users` |
        | `attempt` | int64 | from 1 |
        | `round` | int64 | from 1 |
        | `purpose` | str | `decide`, `reask`, `rank` or `final_rank` |
        | `tool` | str | that the round called, as in `Retrieve[genre]`; `none` where it called none |
        | `num_calls` | int64 | completed calls of the LLM |
        | `num_attempts` | int64 | HTTP requests |
        | `prompt_tokens` | int64 | tokens of prompts |
        | `cached_tokens` | int64 | of these, what the endpoint had in its cache |
        | `completion_tokens` | int64 | tokens of replies |
        | `num_stored_replies` | int64 | calls that a store of replies answered, without cost |
        | `saved_prompt_tokens` | int64 | what these would have cost |
        | `saved_completion_tokens` | int64 | likewise |
        | `saved_cached_tokens` | int64 | likewise |
        | `is_void` | bool | whether it came to nothing: the round was done again, or its user has not ended |
        """
        ledger = ledger_of(read_spend(self.path), self._users)
        return _frame({name: ledger[name] for name in SPEND_TYPES}, SPEND_TYPES)

    def trace(self, user: str | int) -> Trace:
        """All that one user's surrogate did: messages, thoughts, calls, observations, final list.

        Args:
            user: a user id; or a user_index, as a number or in digits. An id that consists of digits is taken as the id.

        Raises:
            RunFolderError: no such user has ended in this run; the message suggests ids that are near.
        """
        return read_trace(self.path, self.user_index_of(user))

    def user_index_of(self, user: str | int) -> int:
        """The user_index of a user that has ended, by its id or its user_index.

        Raises:
            RunFolderError: there is none; the message suggests ids that are near.
        """
        users = self._users
        found = users.loc[users["user_id"] == user, "user_index"]
        is_index = isinstance(user, int) or (user.isascii() and user.isdecimal() and len(user) < 10)
        if found.empty and is_index:
            found = users.loc[users["user_index"] == int(user), "user_index"]
        if not found.empty:
            return int(found.iloc[0])
        ids = [str(user_id) for user_id in users["user_id"]]
        near = difflib.get_close_matches(str(user), ids, n=3, cutoff=0.4) or ids[:3]
        where = "is in this run, or has ended" if self.status == "running" else "has ended in this run"
        hint = f"its {len(ids)} users: {', '.join(near)}, …" if ids else "no user has ended yet"
        raise RunFolderError(f"no such user {where}", value=user, hint=f"give a user id or a user index; {hint}")

    @cached_property
    def _users(self) -> pd.DataFrame:
        return read_users(self.path)

    def _spent(self, usages: Iterable[Iterable[Mapping[str, Any]]]) -> dict[str, list[Any]]:
        """What each row spent, over all purposes."""
        totals = [sum_of_usage(parts) for parts in usages]
        return {
            "num_llm_calls": [used.num_calls for used in totals],
            "prompt_tokens": [used.prompt_tokens for used in totals],
            "completion_tokens": [used.completion_tokens for used in totals],
            "cost_usd": [self.price.cost_usd(used) if self.price else np.nan for used in totals],
        }


def stored_price(manifest: Mapping[str, Any]) -> Price | None:
    """The model's price as it was known when the run was started."""
    price = (manifest.get("prices") or {}).get("price")
    return price_from_json(price) if price else None


def _figures(summary: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """One figure of each recommender's row after the other; what is beside the rows has no intervals."""
    for name, row in summary.items():
        if not isinstance(row, dict) or "intervals" not in row:
            continue
        for metric, interval in row["intervals"].items():
            low, high = interval or (np.nan, np.nan)
            figure = {
                "recommender": name,
                "label": row["label"],
                "metric": metric,
                "mean": row[metric],
                "low": low,
                "high": high,
                "num_users": row["num_users"],
                "mean_finished": row["finished_users"].get(metric),
                "num_finished": row["finished_users"]["num_users"],
            }
            for other in ("backbone", "fusion"):
                difference = row.get(f"difference_to_{other}", {}).get(metric, {})
                figure[f"difference_to_{other}"] = difference.get("mean")
                figure[f"p_value_to_{other}"] = difference.get("p_value")
                figure[f"p_value_holm_to_{other}"] = difference.get("p_value_holm")
            yield figure


def _frame(columns: Mapping[str, Any], types: Mapping[str, str]) -> pd.DataFrame:
    """The columns in the order and of the types that are documented."""
    return pd.DataFrame({name: pd.Series(columns[name], dtype=kind) for name, kind in types.items()})


def _lists(values: Iterable[Iterable[Any]]) -> list[list[Any]]:
    return [np.asarray(value).tolist() for value in values]


def _counts(counts: Iterable[Iterable[Mapping[str, Any]]]) -> list[dict[str, int]]:
    return [{str(entry["kind"]): int(entry["count"]) for entry in entries} for entries in counts]
