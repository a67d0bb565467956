"""What the page says of a whole run: words, tables and the figures of its charts, as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from toolrec.evaluation.baselines import BACKBONE
from toolrec.evaluation.caveats import WEAK_MARK, caveats, weak_fusions
from toolrec.evaluation.coverage import NO_MARK
from toolrec.evaluation.statistics import Resampling, number_or_none, score_intervals
from toolrec.evaluation.summary import COMPLETED, EMBEDDED_MODEL_START, SURROGATE, references_of, rows_of
from toolrec.evaluation.tables import (
    DIFFERENCE_METRICS,
    GROUPINGS,
    NOTHING,
    best_rows,
    dollars,
    facts,
    marks_in_order,
    protocol_entries,
    shown_metric,
    shown_p_value,
)
from toolrec.metrics import DEPTHS, METRICS, values_of
from toolrec.report.fates import CAUSES, SHORT
from toolrec.report.source import RunSource, cut
from toolrec.runs.failures import read_failures
from toolrec.runs.ledger import total_usage

METRIC = "ndcg@10"
CHART_METRICS = ("ndcg@10", "recall@10", "mrr@10")
COST_BINS = 5
TIME_BINS = 40
SHOWN_FAILURES = 50
MAX_TICKS = 20


def overview_json(source: RunSource) -> dict[str, Any]:
    """The first part of the page: what was run, how far it is, and every figure."""
    summary = source.summary
    versions = source.manifest.get("versions", {})
    return {
        "name": source.path.resolve().name,
        "status": source.run.status,
        "created": source.manifest.get("created"),
        "version": versions.get("toolrec"),
        "commit": versions.get("commit"),
        "command": " ".join(source.manifest.get("command", [])),
        "data_set": source.manifest["dataset"]["manifest"].get("name", ""),
        "split": source.split,
        "model": str(source.settings.get("llm.model") or ""),
        "has_price": source.run.price is not None,
        "list_length": source.list_length,
        "fates": SHORT,
        "causes": CAUSES,
        "warnings": source.warnings,
        "progress": _progress(source),
        "protocol_words": _protocol_words(source),
        "groupings": _groupings(summary),
        "charts": _charts(source, summary),
        **({} if summary is None else _figures_json(summary)),
    }


def _figures_json(summary: Mapping[str, Any]) -> dict[str, Any]:
    said = [(name, text) for name, text in facts(summary) if name not in ("protocol", "note", "mind")]
    return {
        "notes": list(summary["protocol"].get("notes") or []),
        "caveats": caveats(summary),
        "verdicts": verdicts(summary),
        "facts": said,
        "protocol": protocol_entries(summary["protocol"]),
        "tables": [table for table in _tables(summary) if table["rows"]],
        "labels": {name: row["label"] for name, row in rows_of(summary).items()},
    }


def _progress(source: RunSource) -> dict[str, Any]:
    """How far the run is, from what is committed and the spend journal; void attempts and users in flight are in the cost."""
    users, planned = source.users, _num_planned(source)
    ended = Counter(str(kind) for kind in users["ended_by"])
    spent = total_usage(source.run.spend) if source.run.status != "complete" else None
    journal_usd = source.run.price.cost_usd(spent) if spent is not None and source.run.price else None
    started = users["started_s"].min() if len(users) else None
    seconds = float(users["ended_s"].max() - started) if started is not None else 0.0
    return {
        "done": len(users),
        "planned": planned,
        "finished": int(source.finished.sum()),
        "ended_by": dict(ended.most_common()),
        "tokens": None if spent is None else spent.prompt_tokens + spent.completion_tokens,
        "usd": None if journal_usd is None else dollars(journal_usd),
        "users_per_s": len(users) / seconds if seconds > 0 else None,
        "failures": [_failure_json(entry) for entry in read_failures(source.path)[-SHOWN_FAILURES:]][::-1],
    }


def _num_planned(source: RunSource) -> int | None:
    users = source.settings.get("users")
    if isinstance(users, int):
        return users
    return None if source.dataset is None else len(source.dataset.users_with_target(source.split))


def _failure_json(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "time": entry.get("time"),
        "kind": cut(entry.get("failure_kind") or entry.get("kind"), 120),
        "reason": cut(entry.get("reason"), 1000),
        "user_index": entry.get("user_index"),
        "user_id": None if entry.get("user_id") is None else cut(entry["user_id"], 200),
        "round": entry.get("round"),
        "is_end": bool(entry.get("is_end")),
    }


def _protocol_words(source: RunSource) -> list[str]:
    """What was run, in sentences."""
    settings = source.settings
    data_set = source.manifest["dataset"]["manifest"]
    planned, split = _num_planned(source), "validation" if source.split == "valid" else source.split
    who = "all users" if settings.get("users") in (None, "all") else f"{planned:,} users drawn with seed {settings.get('seed')}"
    pool = f" of {source.dataset.num_items:,} items" if source.dataset is not None else ""
    model = str(settings.get("llm.model") or "an LLM")
    kind = "the embedded rules, which are not a language model" if model.startswith(EMBEDDED_MODEL_START) else f"the LLM {model}"
    masked = "left out of every list" if settings.get("surrogate.mask_seen", True) else "allowed on every list"
    return [
        f"{who[0].upper()}{who[1:]} of {data_set.get('name', 'the data set')}, {split} split. {_target_words(source)} "
        f"Every list is ranked against the whole pool{pool}; items of the history are {masked}.",
        f"The surrogate is {kind}. It takes at most {settings.get('surrogate.rounds')} rounds, sees the last "
        f"{settings.get('surrogate.prompt_history_length')} items of the history and gives {source.list_length} items. "
        "It never sees the target.",
        "A user that failed counts as a miss. The recommenders are scored on the same users.",
    ]


def _target_words(source: RunSource) -> str:
    """What is held out, and what of it counts as a hit."""
    kind = source.manifest["dataset"]["manifest"].get("split", "leave_one_out")
    if source.targets is not None and source.has_several:
        return (
            f"A user has up to {source.targets.shape[1]} targets, held-out interactions. Here a user is a hit where the list "
            "holds one of them, and stands at the best of their positions; its trajectory tells of each. Tables and charts of "
            "figures count all of them."
        )
    held_out = {"leave_one_out": "the last interaction of each user", "temporal": "an interaction after the cut in time"}
    before = ", for validation the one before it" if source.split == "valid" and kind == "leave_one_out" else ""
    return f"The target is {held_out.get(kind, 'a held-out interaction')}{before}."


def verdicts(summary: Mapping[str, Any]) -> list[str]:
    """What is significant, and what this sample could have shown, for the surrogate against both references."""
    said = []
    confidence = float(summary["statistics"]["confidence"])
    row = rows_of(summary)[SURROGATE]
    for reference in references_of(summary["protocol"]):
        found = row.get(f"difference_to_{reference}", {}).get(METRIC)
        if not found or found["low"] is None:
            continue
        corrected = found.get("p_value_holm", found["p_value"])
        is_told_apart = corrected <= 1 - confidence
        direction = "better than" if found["mean"] > 0 else "worse than"
        words = f"significantly {direction}" if is_told_apart else "not told apart from"
        text = (
            f"The surrogate is {words} the {reference.replace('_', ' ')} in {shown_metric(METRIC)}: difference "
            f"{found['mean']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f}), p {shown_p_value(found['p_value'])}, "
            f"after Holm's correction {shown_p_value(found.get('p_value_holm'))}."
        )
        if found.get("minimum_detectable") is not None:
            text += (
                f" With {row['num_users']:,} users, a difference of {found['minimum_detectable']:.4f} or more is found "
                f"{float(summary['statistics'].get('power', 0.8)):.0%} of the time."
            )
        said.append(text)
    return said


def _tables(summary: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    weak = weak_fusions(summary)
    rows = {
        name: {**row, "label": f"{row['label']} {WEAK_MARK}"} if name in weak else row for name, row in rows_of(summary).items()
    }
    metrics = [f"{metric}@10" for metric in METRICS]
    confidence = f"{float(summary['statistics']['confidence']):.0%}"
    yield _table(
        "figures",
        "",
        f"All users; a user that failed is a miss. Small print: {confidence} intervals. * best of the column.",
        [shown_metric(metric) for metric in metrics],
        rows,
        [[_figure(name, row, metric, rows, interval=True) for metric in metrics] for name, row in rows.items()],
    )
    heads = [
        f"{shown_metric(metric)} to the {ref.replace('_', ' ')}"
        for ref in references_of(summary["protocol"])
        for metric in DIFFERENCE_METRICS
    ]
    yield _table(
        "differences",
        "",
        f"Mean paired difference with its {confidence} interval, p-value of a paired permutation test, alone and after Holm's "
        "correction over the comparisons of the same figure, users better and worse, and the smallest difference that this "
        "many users would show in four of five cases.",
        heads,
        rows,
        [
            [
                _difference(row[f"difference_to_{ref}"].get(metric))
                for ref in references_of(summary["protocol"])
                for metric in DIFFERENCE_METRICS
            ]
            for row in rows.values()
        ],
    )
    depths = [f"{metric}@{depth}" for depth in DEPTHS for metric in METRICS]
    yield _table(
        "depths",
        "All figures",
        f"{NOTHING} where a list is too short for the figure.",
        [shown_metric(metric) for metric in depths],
        rows,
        [[_figure(name, row, metric, rows) for metric in depths] for name, row in rows.items()],
    )
    counts = summary["counts"]
    if counts["finished"] and counts["finished"] != counts["users"]:
        yield _table(
            "finished",
            f"Only the {counts['finished']:,} users that finished",
            "Every row on the same users. These figures leave failures out and so flatter the surrogate.",
            [shown_metric(metric) for metric in metrics],
            rows,
            [[_number(row["finished_users"].get(metric)) for metric in metrics] for row in rows.values()],
        )
    yield from _group_tables(summary, rows)
    yield from _beyond_tables(rows)
    yield _contributions(summary)


def _table(
    name: str,
    title: str,
    caption: str,
    columns: Sequence[str],
    rows: Mapping[str, Mapping[str, Any]],
    cells: Sequence[Sequence[Any]],
) -> dict[str, Any]:
    """A table; a cell is a text, or a text with lines of small print. A row's `query` filters the users that it is about."""
    shown = [
        {"name": row["label"], "is_surrogate": key in (SURROGATE, COMPLETED), "cells": list(of_row), "query": row.get("query")}
        for (key, row), of_row in zip(rows.items(), cells, strict=True)
    ]
    return {"id": name, "title": title, "caption": caption, "columns": list(columns), "rows": shown}


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _figure(
    name: str, row: Mapping[str, Any], metric: str, rows: Mapping[str, Mapping[str, Any]], *, interval: bool = False
) -> list[str]:
    is_best = name in best_rows(rows, metric)
    cell = [_number(row.get(metric)) + ("*" if is_best else "")]
    bounds = row["intervals"].get(metric) if interval else None
    return [*cell, f"{bounds[0]:.4f} – {bounds[1]:.4f}"] if bounds else cell


def _difference(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return [NOTHING]
    cell = [f"{found['mean']:+.4f}"]
    if found["low"] is not None:
        cell.append(f"{found['low']:+.4f} … {found['high']:+.4f}")
    cell.append(f"p {shown_p_value(found['p_value'])}, Holm {shown_p_value(found.get('p_value_holm'))}")
    if "num_better" in found:
        cell.append(f"{found['num_better']:,} better, {found['num_worse']:,} worse")
    if found.get("minimum_detectable") is not None:
        cell.append(f"could show {found['minimum_detectable']:.4f}")
    return cell


def _group_tables(summary: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    groups = summary.get("groups") or {"by": {}}
    shown = [name for name in (SURROGATE, *references_of(summary["protocol"])) if name in rows]
    for grouping, members in groups["by"].items():
        table_rows = {
            str(number): {"label": _group_name(group), "query": {"group": f"{grouping}:{number}"}}
            for number, group in enumerate(members)
        }
        cells = []
        for group in members:
            found = group.get("difference")
            difference = [NOTHING] if found is None else [f"{found['mean']:+.4f}", f"{found['low']:+.4f} … {found['high']:+.4f}"]
            cells.append([f"{group['num_users']:,}", *(f"{group['means'][name]:.4f}" for name in shown), difference])
        heads = ["users", *(name.replace("_", " ") for name in shown), f"{SURROGATE} minus {BACKBONE}"]
        title = f"{shown_metric(groups['metric'])} by {_grouping_words(grouping, groups)}"
        caption = "" if any("label" in group for group in members) else "Three groups of about the same size."
        yield _table(f"group-{grouping}", title, caption, heads, table_rows, cells)


def _grouping_words(grouping: str, groups: Mapping[str, Any]) -> str:
    return GROUPINGS.get(grouping, grouping).format(attribute=groups.get("taste_attribute"))


def _group_name(group: Mapping[str, Any]) -> str:
    return group.get("label") or f"{_rounded(group['low'])} to {_rounded(group['high'])}"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _beyond_tables(rows: Mapping[str, Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    kept = {name: row for name, row in rows.items() if "beyond_accuracy" in row}
    attributes = list(dict.fromkeys(name for row in kept.values() for name in row["beyond_accuracy"]["diversity"]))
    columns = {"catalogue_coverage": "{:.1%}", "novelty": "{:.2f}", "popularity_lift": "{:+.0%}"}
    cells = []
    for row in kept.values():
        beyond = row["beyond_accuracy"]
        cells.append(
            [NOTHING if beyond[name] is None else form.format(beyond[name]) for name, form in columns.items()]
            + [NOTHING if (value := beyond["diversity"].get(name)) is None else f"{value:.3f}" for name in attributes]
        )
    heads = ["catalogue coverage", "novelty (bits)", "popularity over the history's", *(f"diversity, {a}" for a in attributes)]
    caption = "First 10 items of each list. Diversity is the mean distance of two items of a list, 0 to 1."
    yield _table("beyond", "Beyond accuracy", caption, heads, kept, cells)


def _contributions(summary: Mapping[str, Any]) -> dict[str, Any]:
    found = summary["hits"].get("contributions") or {}
    heads = ["brought", "left out of the final list", "brought by no other", "of these hits"]
    keys = ("brought", "left_out", "brought_alone", "brought_alone_and_hit")
    rows = {mark: {"label": mark} for mark in found}
    cells = [[f"{counts[key]:,}" for key in keys] for counts in found.values()]
    return _table("tools", "Targets that each tool brought", "A target can be brought by several tools.", heads, rows, cells)


def _groupings(summary: Mapping[str, Any] | None) -> dict[str, Any]:
    """The groups of the summary, to filter users by: name -> words and bounds."""
    groups = (summary or {}).get("groups") or {"by": {}}
    return {
        name: {
            "words": _grouping_words(name, groups),
            "groups": [[group["low"], group["high"], _group_name(group)] for group in members],
        }
        for name, members in groups["by"].items()
    }


def _charts(source: RunSource, summary: Mapping[str, Any] | None) -> dict[str, Any]:
    charts: dict[str, Any] = {"speed": _speed(source), "failures": _failures(source)}
    if source.fates is not None and len(source.users):
        charts |= {"found": _found_by_round(source), "by_rounds": _by_rounds(source), "cost": _by_cost(source), **_fates(source)}
    if summary is not None:
        charts |= {
            "metrics": _metrics(summary),
            "differences": _differences(summary),
            "groups": _groups(summary),
            "tools": _tools(summary),
            "funnel": _funnel(summary),
        }
    return charts


def _speed(source: RunSource) -> list[dict[str, float]]:
    """Users that ended over time, and how long they took, in bins of equal length."""
    users = source.users
    if len(users) < 2:
        return []
    start = float(users["started_s"].min())
    width = max((float(users["ended_s"].max()) - start) / TIME_BINS, 1e-3)
    bins = np.minimum(((users["ended_s"] - start) / width).astype(int), TIME_BINS - 1)
    seconds = (users["ended_s"] - users["started_s"]).groupby(bins).agg(["size", "median"])
    return [
        {"s": round((int(str(number)) + 0.5) * width, 3), "users_per_s": round(row["size"] / width, 4), "median_s": row["median"]}
        for number, row in seconds.iterrows()
    ]


def _failures(source: RunSource) -> list[dict[str, Any]]:
    failed = source.users[~source.finished]
    kinds = failed["failure_kind"].where(failed["failure_kind"].notna(), failed["ended_by"])
    return [{"kind": str(kind), "num": num} for kind, num in Counter(kinds).most_common()]


def _found_by_round(source: RunSource) -> list[dict[str, float]]:
    """The share of targets that some tool had returned by each round."""
    fates = [fate for of_user in source.fates or () for fate in of_user]
    first = Counter(fate.brought_round for fate in fates if fate.brought_round)
    rounds, found, num = [], 0, max(len(fates), 1)
    for number in range(1, min(int(source.users["num_rounds"].max()), 200) + 1):
        found += first[number]
        rounds.append({"round": number, "share": found / num})
    return rounds


def _fates(source: RunSource) -> dict[str, Any]:
    """Where targets were lost, and the round of it."""
    return {"fates": dict(Counter(fate.kind for of_user in source.fates or () for fate in of_user).most_common())}


def _positions(source: RunSource) -> dict[str, np.ndarray]:
    """The surrogate's and the backbone's positions of the targets, `position_BT`."""
    positions = {} if source.positions is None else {SURROGATE: source.positions}
    if BACKBONE in source.other_positions:
        positions[BACKBONE] = source.other_positions[BACKBONE]
    return positions


def _binned(source: RunSource, bin_B: np.ndarray, labels: Mapping[int, Any]) -> list[dict[str, Any]]:
    """NDCG@10 of surrogate and backbone in bins of users, with score intervals."""
    found = []
    resampling = Resampling(num_resamples=1)
    for name, position_BT in _positions(source).items():
        value_B = values_of(position_BT, [METRIC])[:, 0]
        for number, label in labels.items():
            inside = value_B[bin_B == number]
            if not len(inside):
                continue
            low, high = score_intervals(inside[:, None], resampling)
            found.append(
                {
                    "row": name,
                    "x": label,
                    "mean": float(inside.mean()),
                    "low": number_or_none(low[0]),
                    "high": number_or_none(high[0]),
                    "num": len(inside),
                }
            )
    return found


def _by_rounds(source: RunSource) -> list[dict[str, Any]]:
    number_B = np.minimum(source.users["num_rounds"].to_numpy(dtype=np.int64), MAX_TICKS)
    return _binned(source, number_B, {int(number): int(number) for number in np.unique(number_B)})


def _by_cost(source: RunSource) -> dict[str, Any]:
    """NDCG@10 over what users cost, in bins of as many users each; in tokens where no price is known."""
    usages = [list(parts) for parts in source.users["usage"]]
    if source.run.price is not None:
        amount_B, unit = np.array(source.usd(usages), dtype=np.float64), "dollars a user"
    else:
        tokens = [sum(int(part["prompt_tokens"] or 0) + int(part["completion_tokens"] or 0) for part in of) for of in usages]
        amount_B, unit = np.array(tokens, dtype=np.float64), "tokens a user"
    edges = np.unique(np.quantile(amount_B, np.arange(1, COST_BINS) / COST_BINS, method="lower"))
    bin_B = np.searchsorted(edges, amount_B, side="left")
    means = {int(number): float(amount_B[bin_B == number].mean()) for number in np.unique(bin_B)}
    return {"unit": unit, "points": _binned(source, bin_B, means), "mean": float(amount_B.mean())}


def _metrics(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"label": row["label"], "metric": shown_metric(metric), "value": row[metric], **_bounds(row["intervals"].get(metric)),
         "is_surrogate": name in (SURROGATE, COMPLETED)}
        for metric in CHART_METRICS
        for name, row in rows_of(summary).items()
        if row.get(metric) is not None
    ]  # fmt: skip


def _bounds(interval: Sequence[float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {"low": low, "high": high}


def _differences(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for reference in references_of(summary["protocol"]):
        for name, row in rows_of(summary).items():
            difference = row.get(f"difference_to_{reference}", {}).get(METRIC)
            if difference is not None:
                found.append(
                    {
                        "label": row["label"],
                        "reference": reference.replace("_", " "),
                        "value": difference["mean"],
                        "low": difference["low"],
                        "high": difference["high"],
                        "is_surrogate": name in (SURROGATE, COMPLETED),
                    }
                )
    return found


def _groups(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    groups = summary.get("groups") or {"by": {}}
    rows = [name for name in (SURROGATE, *references_of(summary["protocol"])) if name in rows_of(summary)]
    return [
        {
            "grouping": _grouping_words(grouping, groups),
            "group": _group_name(group),
            "row": name.replace("_", " "),
            "value": group["means"][name],
            "num": group["num_users"],
            **_bounds(group["intervals"][name]),
        }
        for grouping, members in groups["by"].items()
        for group in members
        for name in rows
    ]


def _tools(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each tool: its calls, the targets that its lists held, the hits that carry its mark."""
    hits = summary["hits"]
    calls = (summary["behaviour"].get("tool_calls_by_mark") or {}).get("calls", {})
    panels = {"calls": calls, "targets in its lists": hits["found_by_mark"], "hits": hits["surrogate"]["by_any_mark"]}
    marks = marks_in_order(list(panels.values())) or [NO_MARK]
    return [{"mark": mark, "panel": panel, "num": of.get(mark, 0)} for panel, of in panels.items() for mark in marks]


def _funnel(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows, ceiling = rows_of(summary), summary["hits"]["ceiling"]
    found = [{"label": f"in the candidates (mean {ceiling['mean_candidates'] or 0:.0f} items)", "value": ceiling["recall"] or 0}]
    found.append({"label": "in the final list", "value": rows[SURROGATE]["recall@10"] or 0})
    found.append({"label": "in the final list, completed", "value": rows[COMPLETED]["recall@10"] or 0})
    for name in references_of(summary["protocol"]):
        if name in rows:
            words = f"in the {name.replace('_', ' ')}'s own first ten"
            found.append({"label": words, "value": rows[name]["recall@10"] or 0})
    return found
