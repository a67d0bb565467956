"""The summary as tables for a terminal: 80 columns are enough, colour is never needed to read it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolrec.evaluation.baselines import BACKBONE
from toolrec.evaluation.caveats import WEAK_MARK, caveats, weak_fusions
from toolrec.evaluation.coverage import NO_MARK
from toolrec.evaluation.statistics import POWER
from toolrec.evaluation.summary import (
    COMPLETED,
    EMBEDDED_MODEL_START,
    NO_LLM,
    SURROGATE,
    UNREACHABLE,
    references_of,
    rows_of,
)
from toolrec.metrics import DEPTHS, METRICS
from toolrec.util.printable import printable

MAIN_DEPTH = 10
NAME_WIDTH = 14
"""Rows' names get at least so many characters."""

MAX_ATTRIBUTES = 6
"""Attributes whose diversity has a column of its own; summary.json has them all."""

NOTHING = "–"
SHOWN_NAMES = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR"}
BEST_STYLE = "bold"
DIFFERENCE_METRICS = ("ndcg@10", "recall@10")
SHORT_PROTOCOL = (
    "data_set",
    "split",
    "users",
    "seed",
    "mask_seen",
    UNREACHABLE,
    "model",
    "strategy",
    "obscure",
    "rounds",
    "strongest_fusion",
)
"""What of the protocol stands under the short table."""

GROUPINGS = {
    "history_length": "length of the history",
    "taste_breadth": "breadth of taste (effective number of values of {attribute} in the history)",
    "target_count": "how often the target occurs in training (few: a cold item)",
    "cold_users": "items of the user in training (few: a cold-start user)",
    "cold_items": "whether the target occurs in training",
}


def print_summary(summary: Mapping[str, Any], console: Console | None = None, *, full: bool = False) -> None:
    """Prints a summary: one table and the main facts, or with `full` every table and all that was run and happened."""
    console = console or Console(highlight=False)
    console.print(full_renderable(summary) if full else short_renderable(summary))


def short_renderable(summary: Mapping[str, Any]) -> RenderableType:
    """One screen of 80 columns: the headline figures, what they leave out, what happened."""
    return Group(_headline_table(summary, rows_of(summary)), Text(""), _fact_table(short_facts(summary)))


def full_renderable(summary: Mapping[str, Any]) -> RenderableType:
    """Every table, for a console of any width."""
    rows = rows_of(summary)
    parts: list[RenderableType] = [_interval_table(summary, rows)]
    parts += [
        _difference_table(rows, metric, reference)
        for reference in references_of(summary["protocol"])
        for metric in DIFFERENCE_METRICS
    ]
    parts.append(_depth_table(rows))
    parts += _beyond_tables(rows)
    parts += _group_tables(summary, rows)
    if summary["hits"].get("contributions"):
        parts.append(_contribution_table(summary["hits"]["contributions"]))
    between = [line for part in parts for line in (part, Text(""))]
    return Group(*between, _fact_table(facts(summary)))


def shown_metric(metric: str) -> str:
    """A figure's name on paper: `ndcg@10` is `NDCG@10`."""
    name, _, depth = metric.partition("@")
    return f"{SHOWN_NAMES[name]}@{depth}"


def best_rows(rows: Mapping[str, Mapping[str, Any]], metric: str) -> set[str]:
    """The rows that show the highest value of a figure; none where it is 0 everywhere."""
    values = {name: round(row[metric], 4) for name, row in rows.items() if row.get(metric) is not None}
    highest = max(values.values(), default=0.0)
    return {name for name, value in values.items() if value == highest > 0}


def _table(title: str) -> Table:
    # Text, not str: a string would be read as markup.
    return Table(
        title=Text(title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )


def _label(row: Mapping[str, Any]) -> Text:
    """The row's name; the headline says that only surrogates ask an LLM, and the first row what the surrogate is."""
    if str(row["label"]).startswith(COMPLETED.replace("_", ", ")):
        return _short_label(row)
    return Text(printable(str(row["label"]).removesuffix(f" {NO_LLM}"), limit=80))


def _marked_label(row: Mapping[str, Any], is_weak: bool) -> Text:
    return Text.assemble(_label(row), f" {WEAK_MARK}" if is_weak else "")


def _short_label(row: Mapping[str, Any]) -> Text:
    """The row's name without what stands in parentheses: the first table has it."""
    return Text(printable(str(row["label"]).partition(" (")[0], limit=80))


def _interval_table(summary: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> Table:
    metrics = [f"{metric}@{MAIN_DEPTH}" for metric in METRICS]
    confidence = float(summary["statistics"]["confidence"])
    num_users = summary["counts"]["users"]
    table = _table(f"All {num_users:,} users, {confidence:.0%} intervals; * best of the column; only surrogates ask an LLM")
    table.add_column("", overflow="fold")
    for metric in metrics:
        table.add_column(shown_metric(metric), no_wrap=True)
    best = {metric: best_rows(rows, metric) for metric in metrics}
    weak = weak_fusions(summary)
    for name, row in rows.items():
        cells = [_figure(row, metric, name in best[metric], interval=True) for metric in metrics]
        table.add_row(_marked_label(row, name in weak), *cells)
    return table


def _headline_table(summary: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> Table:
    confidence = float(summary["statistics"]["confidence"])
    num_users = summary["counts"]["users"]
    table = _table(f"{num_users:,} users, {confidence:.0%} intervals; * best of the column; only surrogates ask an LLM")
    table.add_column("", overflow="fold")
    table.add_column(shown_metric("ndcg@10"), no_wrap=True)
    table.add_column(shown_metric("recall@10"), justify="right", no_wrap=True)
    table.add_column(f"{shown_metric('ndcg@10')} minus\nthe {BACKBONE}'s", no_wrap=True)
    table.add_column("Holm\np", no_wrap=True)
    best = {metric: best_rows(rows, metric) for metric in ("ndcg@10", "recall@10")}
    weak = weak_fusions(summary)
    for name, row in rows.items():
        difference = row.get(f"difference_to_{BACKBONE}", {}).get("ndcg@10")
        shown, _, corrected = _difference(difference)
        figures = [
            _figure(row, "ndcg@10", name in best["ndcg@10"], interval=True),
            _figure(row, "recall@10", name in best["recall@10"]),
        ]
        table.add_row(_marked_label(row, name in weak), *figures, shown, corrected)
    return table


def _depth_table(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    metrics = [f"{metric}@{depth}" for depth in DEPTHS if depth != MAIN_DEPTH for metric in METRICS]
    table = _table(f"At the other depths ({NOTHING} where the list is shorter)")
    table.add_column("", overflow="fold")
    for metric in metrics:
        table.add_column(shown_metric(metric).replace("@", "\n@"), justify="right", no_wrap=True)
    best = {metric: best_rows(rows, metric) for metric in metrics}
    for name, row in rows.items():
        table.add_row(_short_label(row), *(_figure(row, metric, name in best[metric]) for metric in metrics))
    return table


def _figure(row: Mapping[str, Any], metric: str, is_best: bool, *, interval: bool = False) -> Text:
    value = row.get(metric)
    if value is None:
        return Text(NOTHING)
    text = Text(f"{value:.4f}", style=BEST_STYLE if is_best else "")
    text.append("*" if is_best else " ")
    bounds = row["intervals"].get(metric) if interval else None
    if bounds:
        text.append(f"{_short(bounds[0])}–{_short(bounds[1])}", style="dim")
    return text


def _short(value: float) -> str:
    """Three decimals without the leading zero."""
    return f"{value:.3f}".removeprefix("0")


def _difference_table(rows: Mapping[str, Mapping[str, Any]], metric: str, reference: str) -> Table:
    words = reference.replace("_", " ")
    table = _table(f"{shown_metric(metric)} minus the {words}'s, user by user")
    table.add_column("", overflow="fold", min_width=NAME_WIDTH)
    for heading in ("difference", "p", "Holm\np", "better\n/worse", "effect\nsize", f"{POWER:.0%}\npower"):
        table.add_column(heading, justify="left" if heading == "difference" else "right", no_wrap=True)
    for row in rows.values():
        difference = row[f"difference_to_{reference}"].get(metric)
        if difference is not None:
            table.add_row(_short_label(row), *_difference(difference), *_difference_facts(difference))
    return table


def _difference_facts(difference: Mapping[str, Any]) -> list[Text]:
    """How many users gain and lose, the effect size, and what can be detected; older summaries have none of them."""
    if "num_better" not in difference:
        return [Text(NOTHING)] * 3
    effect, least = difference["effect_size"], difference["minimum_detectable"]
    return [
        Text(f"{difference['num_better']:,}/{difference['num_worse']:,}"),
        Text(NOTHING if effect is None else f"{effect:+.2f}"),
        Text(NOTHING if least is None else f"{least:.4f}"),
    ]


def _difference(difference: Mapping[str, Any] | None) -> list[Text]:
    if difference is None:
        return [Text(NOTHING), Text(NOTHING), Text(NOTHING)]
    shown = Text(_signed(difference["mean"]))
    if difference["low"] is not None:
        shown.append(f" {_signed(difference['low'])}…{_signed(difference['high'])}", style="dim")
    return [shown, Text(shown_p_value(difference["p_value"])), Text(shown_p_value(difference.get("p_value_holm")))]


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("0.", ".", 1)


def shown_p_value(p_value: float | None) -> str:
    """A p-value in three decimals."""
    if p_value is None:
        return NOTHING
    return "<.001" if p_value < 0.001 else _short(p_value)


def _beyond_tables(rows: Mapping[str, Mapping[str, Any]]) -> Iterable[Table]:
    """Coverage, novelty and popularity; then diversity, a column for each attribute."""
    beyond = {name: row["beyond_accuracy"] for name, row in rows.items() if "beyond_accuracy" in row}
    if not beyond:
        return
    table = _table("Beyond accuracy, first 10 items")
    table.add_column("", overflow="fold", min_width=NAME_WIDTH)
    columns = {
        "catalogue_coverage": ("catalogue\ncoverage", "{:.1%}"),
        "novelty": ("novelty\n(bits)", "{:.2f}"),
        "popularity_lift": ("popularity\nover the history's", "{:+.0%}"),
    }
    for heading, _ in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for name, figures in beyond.items():
        cells = [_shown(figures[key], shape) for key, (_, shape) in columns.items()]
        table.add_row(_short_label(rows[name]), *cells)
    yield table
    attributes = list(dict.fromkeys(name for figures in beyond.values() for name in figures["diversity"]))[:MAX_ATTRIBUTES]
    if not attributes:
        return
    table = _table("Diversity within a list, by attribute (mean distance of two items, 0 to 1)")
    table.add_column("", overflow="fold", min_width=NAME_WIDTH)
    for attribute in attributes:
        table.add_column(printable(attribute, limit=40), justify="right", overflow="fold")
    for name, figures in beyond.items():
        cells = [_shown(figures["diversity"].get(attribute), "{:.3f}") for attribute in attributes]
        table.add_row(_short_label(rows[name]), *cells)
    yield table


def _shown(value: float | None, shape: str) -> Text:
    return Text(NOTHING if value is None else shape.format(value))


def _group_tables(summary: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> Iterable[Table]:
    """One table a grouping: the main rows' figures in each group, and the surrogate's difference to the backbone."""
    groups = summary.get("groups") or {"by": {}}
    shown_rows = [name for name in (SURROGATE, *references_of(summary["protocol"])) if name in rows]
    for grouping, members in groups["by"].items():
        title = GROUPINGS.get(grouping, grouping).format(attribute=printable(str(groups["taste_attribute"]), limit=40))
        table = _table(f"{shown_metric(groups['metric'])} by {title}")
        table.add_column("", no_wrap=True)
        table.add_column("users", justify="right", no_wrap=True)
        for name in shown_rows:
            table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
        table.add_column(f"{SURROGATE} minus\n{BACKBONE}", no_wrap=True)
        for group in members:
            figures = [f"{group['means'][name]:.4f}" for name in shown_rows]
            name = group.get("label") or f"{_rounded(group['low'])} to {_rounded(group['high'])}"
            table.add_row(name, f"{group['num_users']:,}", *figures, _difference(group.get("difference"))[0])
        yield table


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _contribution_table(contributions: Mapping[str, Mapping[str, int]]) -> Table:
    table = _table("Targets that each tool brought into the candidates")
    for heading in ("", "brought", "left out of\nthe final list", "brought by\nno other", "of these\nhits"):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for mark, counts in contributions.items():
        cells = [f"{counts[key]:,}" for key in ("brought", "left_out", "brought_alone", "brought_alone_and_hit")]
        table.add_row(Text(printable(mark, limit=80)), *cells)
    return table


def _fact_table(entries: Iterable[tuple[str, str]]) -> RenderableType:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, text in entries:
        table.add_row(Text(name), Text(text))
    return table


def short_facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands below the headline table, as (name, sentence): notes, caveats, and where the hits come from."""
    protocol = summary["protocol"]
    entries = {name: protocol.get(name) for name in SHORT_PROTOCOL}
    lines = [*_notes(summary), *(("mind", text) for text in caveats(summary))]
    lines += [
        ("protocol", protocol_line(entries)),
        ("users", _users_line(summary)),
        ("a user", _behaviour_line(summary["behaviour"])),
        _ceiling_line(summary["hits"]),
        ("cost", _bill_line(summary)),
        ("", "`toolrec show RUN --full` has every table, the whole protocol, tokens and methods"),
    ]
    return [(name, text) for name, text in lines if text]


def facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is said below all tables, as (name, sentence)."""
    lines = [*_notes(summary), *(("mind", text) for text in caveats(summary))]
    lines += [
        ("protocol", protocol_line(summary["protocol"])),
        ("users", _users_line(summary)),
        ("finished users", _finished_line(summary)),
        ("a user", _behaviour_line(summary["behaviour"])),
        *_hit_lines(summary["hits"], summary),
        *_cost_lines(summary),
        ("statistics", _statistics_line(summary["statistics"])),
    ]
    return [(name, text) for name, text in lines if text]


def _notes(summary: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for note in summary["protocol"].get("notes") or ():
        yield "note", printable(str(note), limit=300)


def protocol_line(protocol: Mapping[str, Any]) -> str:
    """What was run, every setting with its name."""
    return "; ".join(f"{name} {value}" for name, value in protocol_entries(protocol))


def protocol_entries(protocol: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The protocol's settings in words; nested ones are joined."""
    entries = []
    for name, value in protocol.items():
        if name != "notes" and value is not None and value != {} and value != []:
            entries.append((printable(name.replace("_", " "), limit=60), printable(_setting(value), limit=300)))
    return entries


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_setting(part)}" for name, part in value.items() if part is not None)
    if isinstance(value, (list, tuple)):
        return ", ".join(_setting(part) for part in value)
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def listed_counts(counts: Mapping[str, Any], *, limit: int = 12) -> str:
    """Counts by name, `genre 12, none 3`; past `limit` of them the rest is only announced."""
    shown = [f"{printable(str(name), limit=80)} {count:,}" for name, count in list(counts.items())[:limit]]
    return ", ".join(shown) + (", …" if len(counts) > limit else "")


def _users_line(summary: Mapping[str, Any]) -> str:
    counts = summary["counts"]
    failures = f"; failures: {listed_counts(counts['failures'])}" if counts["failures"] else ""
    return f"{counts['users']:,}: {listed_counts(counts['ended_by'])}{failures}"


def _finished_line(summary: Mapping[str, Any]) -> str:
    counts = summary["counts"]
    if counts["finished"] == counts["users"]:
        return f"all {counts['users']:,} finished, so their figures are those above"
    if not counts["finished"]:
        return "none finished"
    rows = rows_of(summary)
    shown = []
    for name in (SURROGATE, COMPLETED, *references_of(summary["protocol"])):
        if name in rows:
            of_finished = rows[name]["finished_users"]
            shown.append(f"{name.replace('_', ' ')} {of_finished['ndcg@10']:.4f} / {of_finished['recall@10']:.4f}")
    return f"{counts['finished']:,}, NDCG@10 / Recall@10: " + ", ".join(shown)


def _behaviour_line(behaviour: Mapping[str, Any]) -> str:
    means = [
        f"{behaviour[key]['mean']:.2f} {name}"
        for key, name in (
            ("rounds", "rounds"),
            ("tool_calls", "tool calls"),
            ("llm_calls", "LLM calls"),
            ("reasks", "re-asks"),
            ("final_list_items", "items in the final list"),
        )
        if key in behaviour
    ]
    return "mean of " + ", ".join(means)


def _hit_lines(hits: Mapping[str, Any], summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    surrogate, equal = hits["surrogate"], hits["equal_lists"]
    calls = summary["behaviour"].get("tool_calls_by_mark") or {}
    lines = [
        ("tool calls", listed_counts(calls.get("calls", {}))),
        _ceiling_line(hits),
        (
            "hits",
            f"by the tool that is called first: {listed_counts(surrogate['by_first_mark'])}" if surrogate["num_hits"] else "none",
        ),
    ]
    if surrogate["num_hits"]:
        lines.append(("", f"brought by: {listed_counts(surrogate['by_any_mark'])}"))
    if equal["num_full_lists"]:
        lines.append(("equal lists", _equal_line(equal)))
    return lines


def _ceiling_line(hits: Mapping[str, Any]) -> tuple[str, str]:
    ceiling, surrogate = hits["ceiling"], hits["surrogate"]
    no_tool = surrogate["by_first_mark"].get(NO_MARK, 0)
    kept = surrogate["num_hits"] - no_tool
    text = (
        f"{ceiling['recall']:.4f} recall of all candidates, {ceiling['mean_candidates']:.1f} of them a user; "
        f"{kept:,} of {ceiling['num_hits']:,} targets among them made it into the final list"
    )
    return "ceiling", text + (f"; {no_tool:,} hits more were named without a tool" if no_tool else "")


def _equal_line(equal: Mapping[str, Any]) -> str:
    by_mark = equal["num_in_order_by_mark"]
    detail = f" ({listed_counts(by_mark)})" if by_mark else ""
    return (
        f"{equal['in_order']['any_tool']:.1%} of {equal['num_full_lists']:,} full lists are one tool's first items in order"
        f"{detail}, {equal['in_order']['any_retrieval']:.1%} a retrieval tool's; "
        f"{equal['as_set']['any_tool']:.1%} as a set"
    )


def dollars(amount_usd: float | None) -> str:
    """A sum in dollars with enough places to tell it from nothing; an unknown one is not shown as 0."""
    if amount_usd is None:
        return "not known"
    if amount_usd >= 1 or amount_usd == 0:
        return f"${amount_usd:,.2f}"
    return f"${amount_usd:.{2 - math.floor(math.log10(amount_usd))}f}"


def _cost_lines(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    speed = summary["users_per_s"]
    lines = [
        ("LLM", _tokens_line(purpose, tokens))
        for purpose, tokens in summary["tokens"].items()
        if purpose == "total" or len(summary["tokens"]) > 2
    ]
    lines = [(name if index == 0 else "", text) for index, (name, text) in enumerate(lines)]
    lines.append(("cost", _bill_line(summary)))
    events = summary["counts"]["events"]
    if events:
        lines.append(("events", listed_counts(events)))
    if speed is not None:
        lines.append(("speed", f"{speed:.1f} users/s, {summary['wall_s']:.1f} s from the first start to the last end"))
    return lines


def _tokens_line(purpose: str, tokens: Mapping[str, int]) -> str:
    cached = f" ({tokens['cached_tokens']:,} cached)" if tokens["cached_tokens"] else ""
    return (
        f"{printable(purpose, limit=40)}: {tokens['num_calls']:,} calls ({tokens['num_attempts']:,} attempts), "
        f"{tokens['prompt_tokens']:,} prompt tokens{cached}, {tokens['completion_tokens']:,} completion tokens{_saved(tokens)}"
    )


def _saved(tokens: Mapping[str, Any]) -> str:
    """What stored replies spared, where there were any."""
    if not tokens.get("num_stored_replies"):
        return ""
    saved = tokens["saved_prompt_tokens"] + tokens["saved_completion_tokens"]
    return f"; {tokens['num_stored_replies']:,} calls answered by stored replies, {saved:,} tokens saved"


def _bill_line(summary: Mapping[str, Any]) -> str:
    """The run's dollars, those for nothing apart; empty where no LLM was asked and no price is known."""
    tokens, model = summary["tokens"], str(summary["protocol"].get("model") or "")
    total_usd, void = tokens["total"].get("usd"), tokens.get("void")
    if total_usd is None:
        if not model or model.startswith(EMBEDDED_MODEL_START):
            return ""
        return f"not known: no price for {printable(model, limit=80)}; --prices FILE gives one"
    if not total_usd and tokens["total"]["num_calls"] and not tokens["total"]["prompt_tokens"] and not _saved(tokens["total"]):
        return "not known: the endpoint tells no tokens"
    void_usd = void["usd"] if void else 0.0
    apart = f", {dollars(void_usd)} of it for attempts that came to nothing" if void else ""
    return f"{dollars(total_usd + void_usd)}{apart}"


def _statistics_line(statistics: Mapping[str, Any]) -> str:
    names = ("interval", "difference_interval", "test", "correction")
    methods = "; ".join(str(statistics[name]) for name in names if name in statistics)
    return f"{methods}; {statistics['num_resamples']:,} resamples, seed {statistics['seed']}"


def table_text(summary: Mapping[str, Any], *, width: int = 80, full: bool = True) -> str:
    """The tables as plain text of the given width."""
    console = Console(width=width, no_color=True, highlight=False, force_terminal=False)
    with console.capture() as capture:
        print_summary(summary, console, full=full)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def marks_in_order(counts: Sequence[Mapping[str, int]]) -> list[str]:
    """Every name of several counts, once, in order of appearance."""
    return list(dict.fromkeys(name for count in counts for name in count))
