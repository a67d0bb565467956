"""A run's users and traces as plain values for the page, read from Parquet block by block, also while the run goes on.

Texts are passed on as they are, only cut: the page shows every one of them as text.

Shapes: `B` users, `T` targets of a user, 0 where one has fewer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from toolrec.data import Dataset
from toolrec.errors import RunFolderError
from toolrec.evaluation.analyses.beyond_accuracy import training_counts
from toolrec.evaluation.analyses.groups import cold_start_groups, group_values
from toolrec.evaluation.baselines import BACKBONE
from toolrec.evaluation.behaviour import is_finished
from toolrec.evaluation.summary import COMPLETED, DEFAULT_LIST_LENGTH, STRONGEST, SURROGATE
from toolrec.grammar import NOT_ACCEPTED_LABEL
from toolrec.metrics import NO_TARGET, pad_lists, positions_of
from toolrec.recommenders.fusion.learned import FUSION
from toolrec.report.fates import BADGES, Fate, Sighting, fate_of, nearest_fate
from toolrec.runs.folder import part_sizes, read_lists, read_parts, read_rounds
from toolrec.runs.rows import sum_of_usage
from toolrec.runs.run import Run, find_dataset
from toolrec.stress.histories import as_the_run_read

BLOCK_USERS = 100
"""A block of traces, the part in which they are loaded, has at least so many users; only the last one has fewer."""

TEXT_LENGTH = 20_000
TITLE_LENGTH = 300
ID_LENGTH = 200
NAME_LENGTH = 120
"""Characters that the page gets of thoughts and observations, of titles, of ids, and of marks and kinds."""

SHOWN_FINAL = 20
"""Items of the other recommenders' lists that are shown beside the final list."""


def cut(text: object, limit: int) -> str:
    """The text, cut with a word about it."""
    shown = "" if text is None else str(text)
    return shown if len(shown) <= limit else f"{shown[:limit]}… ({len(shown) - limit:,} characters more in the run folder)"


class RunSource:
    """One run as the page reads it. Of a run that goes on, it has what was committed when it was made.

    Args:
        run: the opened run.
        dataset: the run's data set, where it is loaded already; else it is looked for where the manifest says.

    Attributes:
        warnings: what is missing, in words.
        stored_dataset: the data set as it is stored; `dataset` has the histories that this run's users were shown.
    """

    def __init__(self, run: Run, *, dataset: Dataset | None = None) -> None:
        self.run = run
        self.path: Path = run.path
        self.manifest: dict[str, Any] = run.manifest
        self.settings: Mapping[str, Any] = run.manifest["settings"]
        self.split = self.settings.get("split", "test")
        self.warnings: list[str] = []
        self.sizes = part_sizes(run.path)
        self.stored_dataset = dataset if dataset is not None else self._find_dataset()
        self.dataset = None if self.stored_dataset is None else as_the_run_read(self.stored_dataset, self.settings)

    def _find_dataset(self) -> Dataset | None:
        dataset, why_not = find_dataset(self.run)
        if dataset is None:
            self.warnings.append(f"without titles, histories and targets: {why_not}")
        return dataset

    @property
    def list_length(self) -> int:
        """Places of a final list."""
        return int(self.settings.get("surrogate.list_length") or DEFAULT_LIST_LENGTH)

    @cached_property
    def blocks(self) -> dict[str, list[str]]:
        """Key of each block of traces -> its Parquet files; a key never stands for two contents.

        While a run goes on, the last block grows and its key changes. `block_json` still knows the earlier key.
        """
        blocks: dict[str, list[str]] = {}
        names: list[str] = []
        num_users = 0
        for name, size in self.sizes.items():
            names.append(name)
            num_users += size
            if num_users >= BLOCK_USERS:
                blocks[_key(names)] = names
                names, num_users = [], 0
        if names:
            blocks[_key(names)] = names
        return blocks

    @cached_property
    def block_of_user(self) -> dict[int, str]:
        """user_index -> key of the block with its trace."""
        return {
            int(user): key
            for key, names in self.blocks.items()
            for user in read_parts(self.path, names, "users").column("user_index").to_pylist()
        }

    @cached_property
    def users(self) -> pd.DataFrame:
        """All committed users, in the order of the files."""
        frame: pd.DataFrame = self._user_table.drop_columns(["candidates"]).to_pandas()
        return frame

    @cached_property
    def _user_table(self) -> pa.Table:
        table = read_parts(self.path, list(self.sizes), "users")
        if table.num_rows and len(set(table.column("user_index").to_pylist())) < table.num_rows:
            raise RunFolderError("the run holds the same user twice", value=str(self.path))
        return table

    @cached_property
    def targets(self) -> np.ndarray | None:
        """Each user's targets, along `users`: `target_BT`; None without the data set."""
        if self.dataset is None:
            return None
        target_BT = self.dataset.all_targets(self.split)[self.users["user_index"].to_numpy(dtype=np.int64)]
        return np.asarray(target_BT.astype(np.int64))

    @property
    def has_several(self) -> bool:
        """Whether there are users with several targets."""
        return self.targets is not None and self.targets.shape[1] > 1

    @cached_property
    def finished(self) -> np.ndarray:
        """Whether each user finished, along `users`."""
        return is_finished(self.users)

    @cached_property
    def positions(self) -> np.ndarray | None:
        """The targets' positions in each final list, `position_BT`; a failed user's are misses, whatever its list holds."""
        if self.targets is None:
            return None
        given = [
            [int(item) for item in items] if finished else []
            for items, finished in zip(self.users["final_items"], self.finished, strict=True)
        ]
        return positions_of(pad_lists(given, length=self.list_length), self.targets)

    @cached_property
    def lists(self) -> dict[str, np.ndarray]:
        """The recommenders' own lists along `users`, by row name; empty until the run has figures."""
        frame = read_lists(self.path)
        if frame is None:
            return {}
        found = {}
        for name, rows in frame.groupby("recommender", sort=False)["items"]:
            if name in (SURROGATE, COMPLETED):
                continue
            by_user = dict(zip(frame["user_index"][rows.index].tolist(), rows, strict=True))
            if len(by_user) == len(self.users) and by_user.keys() == set(self.users["user_index"]):
                found[str(name)] = np.stack([by_user[user] for user in self.users["user_index"]]).astype(np.int64)
        return found

    @property
    def beside(self) -> list[str]:
        """The rows whose lists stand beside the final list: the backbone, reciprocal rank fusion, the strongest fusion."""
        strongest = self.summary.get("protocol", {}).get(STRONGEST) if self.summary else None
        wanted = dict.fromkeys((BACKBONE, FUSION, str(strongest or FUSION)))
        return [name for name in wanted if name in self.lists]

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """The run's summary.json; None until it is complete."""
        return self.run.summary_json if self.run.status == "complete" else None

    @cached_property
    def sightings(self) -> list[list[list[Sighting]]]:
        """For each user, along `users`, and each of its targets: the tools' lists, in the order of the rounds."""
        column = self._user_table.column("candidates").combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # no users at all
            return []
        offsets, flat = column.offsets.to_numpy(), column.values
        item, position = flat.field("item_index").to_numpy(), flat.field("position").to_numpy()
        number = flat.field("round").to_numpy()
        marks = flat.field("mark").dictionary_encode()
        names, code = marks.dictionary.to_pylist(), marks.indices.to_numpy(zero_copy_only=False)
        found = []
        for row in range(len(offsets) - 1):
            part = slice(offsets[row], offsets[row + 1])
            keys = number[part].astype(np.int64) * max(len(names), 1) + code[part]
            lists = [(key, key // len(names), names[key % len(names)]) for key in np.unique(keys).tolist()]
            of_user = []
            for target in self._targets_of(row).values():
                is_target = item[part] == target
                at = dict(zip(keys[is_target].tolist(), position[part][is_target].tolist(), strict=True))
                of_user.append([Sighting(round=round, mark=mark, position=int(at.get(key, 0))) for key, round, mark in lists])
            found.append(of_user)
        return found

    def _targets_of(self, row: int) -> dict[int, int]:
        """Column of each target -> its item, of one user."""
        return {} if self.targets is None else {t: item for t, item in enumerate(self.targets[row].tolist()) if item}

    @cached_property
    def fates(self) -> list[list[Fate]] | None:
        """What became of each of the users' targets, along `users`; None without the data set."""
        dataset, positions = self.dataset, self.positions
        if dataset is None or positions is None:
            return None
        masks = bool(self.settings.get("surrogate.mask_seen", True))
        found = []
        for row, user in enumerate(self.users["user_index"].tolist()):
            of_user = []
            for (column, target), lists in zip(self._targets_of(row).items(), self.sightings[row], strict=True):
                is_seen = any(sighting.position for sighting in lists)
                of_user.append(
                    fate_of(
                        lists,
                        is_hit=bool(positions[row, column] > 0),
                        is_finished=bool(self.finished[row]),
                        is_masked=masks and not is_seen and target in dataset.history(user, self.split),
                        num_rounds=int(self.users["num_rounds"].iloc[row]),
                        list_length=self.list_length,
                    )
                )
            found.append(of_user)
        return found

    @cached_property
    def other_positions(self) -> dict[str, np.ndarray]:
        """The targets' positions in the lists of `beside`, `position_BT` by row name."""
        targets = self.targets
        return {} if targets is None else {name: positions_of(self.lists[name], targets) for name in self.beside}

    def usd(self, usages: Iterable[Iterable[Mapping[str, Any]]]) -> list[float | None]:
        """What each of several lists of usages cost."""
        price = self.run.price
        return [None if price is None else price.cost_usd(sum_of_usage(parts)) for parts in usages]

    def users_json(self) -> dict[str, Any]:
        """The table of users, column by column."""
        users = self.users
        usages = [list(parts) for parts in users["usage"]]
        totals = [sum_of_usage(parts) for parts in usages]
        attributes: dict[str, int] = {}
        called = self._called_attributes(attributes)
        columns: dict[str, Any] = {
            "index": users["user_index"].tolist(),
            "id": [cut(user_id, ID_LENGTH) for user_id in users["user_id"]],
            "block": [self.block_of_user[int(user)] for user in users["user_index"]],
            "ended": users["ended_by"].tolist(),
            "finished": self.finished.tolist(),
            "failure": [None if pd.isna(kind) else str(kind) for kind in users["failure_kind"]],
            "position": None if self.positions is None else best_positions(self.positions).tolist(),
            "rounds": users["num_rounds"].tolist(),
            "calls": users["num_tool_calls"].tolist(),
            "reasks": [_count(entries, "reask") for entries in users["counts"]],
            "tokens": [total.prompt_tokens + total.completion_tokens for total in totals],
            "usd": [None if value is None else float(f"{value:.4g}") for value in self.usd(usages)],
            "seconds": (users["ended_s"] - users["started_s"]).round(2).tolist(),
            "attributes": [called.get(int(user), []) for user in users["user_index"]],
        }
        if self.targets is not None and self.dataset is not None:
            pool = self.dataset.pool
            columns["target"] = [cut(pool.titles[target] or pool.item_ids[target], TITLE_LENGTH) for target in self.targets[:, 0]]
        if self.fates is not None:
            nearest = [nearest_fate(of_user) for of_user in self.fates]
            columns["fate"] = [fate.kind for fate in nearest]
            columns["where"] = [fate.where for fate in nearest]
        if self.has_several and self.positions is not None:
            columns["at"] = [[place for place in of_user if place != NO_TARGET] for of_user in self.positions.tolist()]
            columns["fates"] = [[fate.kind for fate in of_user] for of_user in self.fates or ()]
        others = {name: best_positions(position_BT).tolist() for name, position_BT in self.other_positions.items()}
        return {
            "num": len(users),
            "columns": columns,
            "others": others,
            "groups": self._groups_json(),
            "attributes": [cut(name, NAME_LENGTH) for name in attributes],
            "blocks": list(self.blocks),
        }

    def _groups_json(self) -> dict[str, list[float]]:
        """What users are grouped by in the summary, as a number for each."""
        if self.dataset is None or self.targets is None or self.users.empty:
            return {}
        users, count_I = self.users["user_index"].tolist(), training_counts(self.dataset)
        first_B = self.targets[:, 0]
        values = group_values(self.dataset, users, first_B, self.split, count_I)
        named = cold_start_groups(self.dataset, users, first_B, count_I)
        values = {**values, **{name: grouping.place_B for name, grouping in named.items()}}
        return {name: [round(float(number), 4) for number in value_B] for name, value_B in values.items()}

    def _called_attributes(self, vocabulary: dict[str, int]) -> dict[int, list[int]]:
        """user_index -> numbers of the attributes that its surrogate called, in `vocabulary`, which is filled."""
        attempts = dict(zip(self.users["user_index"].tolist(), self.users["attempt"].tolist(), strict=True))
        rounds = read_rounds(self.path, columns=("user_index", "attempt", "round", "call"))
        called: dict[int, list[int]] = {}
        for user, attempt, call in zip(rounds["user_index"].tolist(), rounds["attempt"].tolist(), rounds["call"], strict=True):
            if not isinstance(call, str) or attempts.get(user) != attempt:
                continue
            fields = json.loads(call)
            if fields.get("name") in ("retrieve", "rank"):
                number = vocabulary.setdefault(str(fields.get("attribute") or "none"), len(vocabulary))
                of_user = called.setdefault(user, [])
                if number not in of_user:
                    of_user.append(number)
        return called

    def block_json(self, key: str) -> dict[str, Any]:
        """One block of traces: users by user_index, and the items that they are about.

        Args:
            key: of one of `blocks`, or of a block as it was when the run had fewer users.

        Raises:
            RunFolderError: there is no such block.
        """
        names = self._files_of(key)
        users = read_parts(self.path, names, "users").drop_columns(["candidates"]).to_pylist()
        rounds: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for row in read_parts(self.path, names, "rounds").to_pylist():
            rounds.setdefault((row["user_index"], row["attempt"]), []).append(row)
        of_block = {int(index): place for place, index in enumerate(self.users["user_index"])}
        shown = {}
        for user in users:
            of_user = sorted(rounds.get((user["user_index"], user["attempt"]), []), key=lambda row: int(row["round"]))
            shown[str(user["user_index"])] = self._trace_json(user, of_user, of_block[user["user_index"]])
        return {"users": shown, "items": self._items_json(shown.values())}

    def _files_of(self, key: str) -> list[str]:
        if key in self.blocks:
            return self.blocks[key]
        # Files never change: what was a block's beginning is in the block that has grown out of it.
        for names in self.blocks.values():
            for num in range(1, len(names)):
                if _key(names[:num]) == key:
                    return names[:num]
        raise RunFolderError("the run holds no such block", value=key)

    def _trace_json(self, user: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]], place: int) -> dict[str, Any]:
        index = int(user["user_index"])
        dataset = self.dataset
        ratings = None if dataset is None else dataset.history_ratings(index, self.split)
        return {
            "id": cut(user["user_id"], ID_LENGTH),
            "attempt": user["attempt"],
            "error": cut(user["error"], TEXT_LENGTH) if user["error"] else None,
            "history": [] if dataset is None else dataset.history(index, self.split).tolist(),
            "ratings": None if ratings is None else [None if np.isnan(rating) else round(float(rating), 2) for rating in ratings],
            "targets": self._targets_json(place),
            "final": user["final_items"],
            "completed": user["completed_items"],
            "beside": {name: self.lists[name][place][:SHOWN_FINAL].tolist() for name in self.beside},
            "counts": {cut(entry["kind"], NAME_LENGTH): entry["count"] for entry in user["counts"]},
            "rounds": [self._round_json(row) for row in rounds if row["round"] > 0],
        }

    def _targets_json(self, place: int) -> list[dict[str, Any]]:
        """Every target of one user: where it stands in the final list and the others' lists, and what became of it."""
        if self.positions is None or self.fates is None:
            return []
        user = self.users.iloc[place]
        failure = str(user["ended_by"] if pd.isna(user["failure_kind"]) else user["failure_kind"])
        return [
            {
                "item": target,
                "position": int(self.positions[place, column]),
                "others": {name: int(position_BT[place, column]) for name, position_BT in self.other_positions.items()},
                "fate": fate.kind,
                "where": fate.where,
                "why": fate.why(list_length=self.list_length, failure=cut(failure, NAME_LENGTH)),
                "round": fate.round,
                "badge": BADGES.get(fate.kind, ""),
                "by": cut(fate.mark, NAME_LENGTH),
                "brought_round": fate.brought_round,
                "best": fate.position,
            }
            for (column, target), fate in zip(self._targets_of(place).items(), self.fates[place], strict=True)
        ]

    def _round_json(self, row: Mapping[str, Any]) -> dict[str, Any]:
        call = json.loads(row["call"]) if row["call"] else None
        counts = {cut(entry["kind"], NAME_LENGTH): entry["count"] for entry in row["counts"]}
        [usd] = self.usd([row["usage"]])
        used = sum_of_usage(row["usage"])
        return {
            "n": row["round"],
            "thought": cut(row["thought"], TEXT_LENGTH),
            "call": None if call is None else _call_json(call),
            "error": cut(row["observation_error"], TEXT_LENGTH) if row["observation_error"] is not None else None,
            "mark": cut(row["mark"], NAME_LENGTH),
            "items": row["items"],
            # A list is told by its items; only what is no list needs its words.
            "text": "" if row["items"] else cut(row["observation_text"], TEXT_LENGTH),
            "reasons": _reasons(row["messages"]) if "reask" in counts else [],
            "counts": counts,
            "calls": used.num_calls,
            "prompt": used.prompt_tokens,
            "cached": used.cached_tokens,
            "reply": used.completion_tokens,
            "usd": None if usd is None else float(f"{usd:.4g}"),
            "s": round(row["duration_s"], 3),
        }

    def _items_json(self, traces: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
        """Id and title of every item that the traces name."""
        if self.dataset is None:
            return {}
        pool = self.dataset.pool
        named: set[int] = set()
        for trace in traces:
            named.update(trace["history"], trace["final"], trace["completed"])
            named.update(target["item"] for target in trace["targets"])
            named.update(item for items in trace["beside"].values() for item in items)
            named.update(item for shown in trace["rounds"] for item in shown["items"])
        known = sorted(item for item in named if 0 < item <= pool.num_items)
        return {str(item): [cut(pool.item_ids[item], ID_LENGTH), cut(pool.titles[item], TITLE_LENGTH)] for item in known}

    def messages_json(self, user_index: int) -> list[dict[str, Any]]:
        """All messages of one user as they are stored, round by round; only the served page asks for them."""
        trace = self.run.trace(user_index)
        parts = [(0, trace.opening), *((done.number, done.messages) for done in trace.rounds)]
        return [{"round": number, "messages": list(messages)} for number, messages in parts]


def best_positions(position_BT: np.ndarray) -> np.ndarray:
    """The best position of any of a user's targets, 0 where no target is in the list."""
    none = np.iinfo(np.int64).max
    best_B = np.where(position_BT > 0, position_BT, none).min(axis=1, initial=none)
    return np.asarray(np.where(best_B == none, 0, best_B))


def _key(names: Sequence[str]) -> str:
    first, last = (name.removeprefix("part-").removesuffix(".parquet").lstrip("0") for name in (names[0], names[-1]))
    return f"{first}-{last}"


def _count(entries: Iterable[Mapping[str, Any]], kind: str) -> int:
    return sum(int(entry["count"]) for entry in entries if entry["kind"] == kind)


def _call_json(call: Mapping[str, Any]) -> dict[str, Any]:
    attribute = call.get("attribute")
    return {
        "name": call["name"],
        "attribute": None if attribute is None else cut(attribute, NAME_LENGTH),
        "k": call.get("k"),
        "num": len(call.get("items") or ()),
    }


def _reasons(messages: str) -> list[str]:
    """The re-asks among a round's messages: what was not accepted, and why."""
    contents = (message.get("content") for message in json.loads(messages))
    return [cut(text, TEXT_LENGTH) for text in contents if isinstance(text, str) and text.startswith(NOT_ACCEPTED_LABEL)]
