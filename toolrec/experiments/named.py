"""The named experiments: each a function that gives the points of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from toolrec.errors import ConfigError
from toolrec.experiments.grid import Experiment, Ground, Point, product, setting_axis
from toolrec.recommenders import recommenders_manifest
from toolrec.surrogate.strategies import STRATEGIES

TRAINING_MODES: Mapping[str, Mapping[str, int]] = {
    "frozen": {"max_epochs": 10, "patience": 2},
    "full": {"max_epochs": 10, "patience": 2},
    "scratch": {"max_epochs": 60, "patience": 5},
}
LEARNING_RATES = (3e-4, 1e-3, 3e-3)
POOL_SIZES = (1_000, 10_000, 100_000, 1_000_000)
FAULTS = ("typo", "synonym", "swap", "invented")
FAULT_SHARES = (0.1, 0.3, 0.5)
HARD_HISTORIES = ("own", "contradictory", "rare", "shuffled", "short", "long")
LONG_PROMPT_ITEMS = 200


def basic_flow(ground: Ground) -> list[Point]:
    rounds = ground.few([2, 3, 4])
    attributes = {name: {"tools.attributes": (name,)} for name in ground.few(ground.attributes)}
    return product({"attribute": attributes, "rounds": setting_axis("surrogate.rounds", rounds)})


def memory_injection(ground: Ground) -> list[Point]:
    checks = {"on": {"surrogate.memory_check": True}, "off": {"surrogate.memory_check": False}}
    points = product({"fault": {"none": {}}, "share": {"0%": {}}, "memory": checks})
    for fault in FAULTS:
        shares = {
            f"{share:.0%}": {"stress.reply_fault": fault, "stress.reply_fault_share": share}
            for share in (FAULT_SHARES[-1:] if ground.is_smoke else FAULT_SHARES)
        }
        points += product({"fault": {fault: {}}, "share": shares, "memory": checks})
    return points


def adversarial_histories(ground: Ground) -> list[Point]:
    def settings_of(kind: str) -> dict[str, Any]:
        shown = {"surrogate.prompt_history_length": LONG_PROMPT_ITEMS} if kind == "long" else {}
        return {"stress.histories": kind, **shown}

    return product({"histories": {kind: settings_of(kind) for kind in HARD_HISTORIES}})


def attributes(ground: Ground) -> list[Point]:
    names = ground.attributes
    counts = ground.few(range(len(names) + 1))
    return product({"attributes": {str(count): {"tools.attributes": names[:count]} for count in counts}})


def rounds(ground: Ground) -> list[Point]:
    return product({"rounds": setting_axis("surrogate.rounds", ground.few([7, 1, 2, 3, 5, 10]))})


def history_length(ground: Ground) -> list[Point]:
    lengths = ground.few([10, 1, 3, 5, 20, 50])
    return product({"history_length": setting_axis("surrogate.prompt_history_length", lengths)})


def candidates(ground: Ground) -> list[Point]:
    k = ground.few([20, 5, 10, 50])
    shown = [60] if ground.is_smoke else [60, 20]
    return product(
        {"k": setting_axis("surrogate.default_k", k), "rank_candidates": setting_axis("surrogate.rank_max_candidates", shown)}
    )


def position_bias(ground: Ground) -> list[Point]:
    orders = {"newest first": {}, **{f"shuffled {seed}": {"surrogate.shuffle_rank_candidates": seed} for seed in range(1, 6)}}
    labels = ground.few(list(orders))
    return product({"order": {label: orders[label] for label in labels}})


def prompt_variants(ground: Ground) -> list[Point]:
    return product(
        {
            "protocol": setting_axis("surrogate.protocol", ["tools", "text"]),
            "history_length": setting_axis("surrogate.prompt_history_length", [10] if ground.is_smoke else [10, 5]),
        }
    )


def strategies(ground: Ground) -> list[Point]:
    names = ["toolrec", *(name for name in STRATEGIES if name not in ("toolrec", "one-tool"))]
    if ground.config.is_embedded:
        names.remove("zero-shot")  # which the embedded rules cannot answer
    axis: dict[str, dict[str, Any]] = {name: {"surrogate.strategy": name} for name in names}
    for attribute in ground.few(["none", *ground.attributes]):
        axis[f"one-tool {attribute}"] = {"surrogate.strategy": "one-tool", "surrogate.only_attribute": attribute}
    return product({"strategy": axis})


def frozen_vs_full(ground: Ground) -> list[Point]:
    """The folder's settings, but for the learning rate, which each mode has its own best of."""
    names = ground.attributes[:1] if ground.is_smoke else ground.attributes
    modes = list(TRAINING_MODES)[: 2 if ground.is_smoke else None]
    points = product({"attribute": {name: {"tools.attributes": (name,)} for name in names}, "mode": {mode: {} for mode in modes}})

    def measurement_of(labels: Mapping[str, str]) -> dict[str, Any]:
        limits = {"learning_rates": [LEARNING_RATES[1]], "max_epochs": 1, "patience": 1}
        if not ground.is_smoke:
            limits = {"learning_rates": list(LEARNING_RATES), **TRAINING_MODES[labels["mode"]]}
        return {**labels, **limits}

    return [replace(point, measurement=measurement_of(point.labels)) for point in points]


def pool_size(ground: Ground) -> list[Point]:
    num_items = int(recommenders_manifest(ground.config.recommenders)["dataset"]["num_items"])
    larger = [size for size in POOL_SIZES if size > num_items]
    sizes = [num_items, *(larger[:1] if ground.is_smoke else larger)]
    if len(sizes) < 2:
        raise ConfigError(
            "the pool is larger than all sizes of this experiment", value=num_items, allowed=f"below {POOL_SIZES[-1]}"
        )
    return [Point(labels={"items": f"{size:,}"}, settings={}, measurement={"items": size}) for size in sizes]


def llms(ground: Ground) -> list[Point]:
    if ground.endpoints is not None:
        return product({"llm": ground.endpoints})
    if not ground.is_smoke:
        raise ConfigError("no endpoints to compare", hint="give --endpoints FILE, a YAML file with labels and their settings")
    return product({"llm": {"the run's own": {}}})


QUALITY = ("finished", "mean_rounds", "tool_calls", "reasks", "tokens")

NAMED: tuple[Experiment, ...] = (
    Experiment(
        name="basic-flow",
        question="Does the loop work with one attribute and a fixed number of rounds?",
        varies="Each attribute alone, at 2, 3 and 4 rounds.",
        points=basic_flow,
    ),
    Experiment(
        name="frozen-vs-full",
        question="What does an attribute bring on the frozen backbone, against full fine-tuning and training from nothing?",
        varies="Each attribute, trained on the frozen backbone, with it, and as an input of an untrained one; no surrogates.",
        points=frozen_vs_full,
        measures=("parameters", "learning_rate", "validation_ndcg", "epoch_s", "list_ms", "peak_gb"),
        within="attribute",
    ),
    Experiment(
        name="memory-injection",
        question="What share of misspelt, renamed, swapped and invented items does memory repair, ask for again, or lose?",
        varies="Four faults in 0, 10, 30 and 50 % of the entries of the LLM's lists, with memory's check on and off.",
        points=memory_injection,
        measures=("injected", "repaired", "refused", "wrong", "reasks", "gave_up", "empty_slots", "outside_pool"),
    ),
    Experiment(
        name="adversarial-histories",
        question="Does the surrogate recover from a hard history, or does it repeat its calls?",
        varies="Own, contradictory, rare, shuffled, very short and very long histories, for recommenders and surrogates alike.",
        points=adversarial_histories,
        measures=("backbone", "finished", "forced", "mean_rounds", "repeats", "reasks", "same_items", "tokens"),
    ),
    Experiment(
        name="attributes",
        question="What does each further attribute tool bring, and cost?",
        varies="No attribute, the first one, the first two, … of those that were trained.",
        points=attributes,
        measures=("ceiling", "mean_rounds", "tool_calls", "tokens", "seconds", "tools_mb", "tuned_mb"),
    ),
    Experiment(
        name="rounds",
        question="How many rounds does the surrogate need?",
        varies="At most 7 (the paper's), 1, 2, 3, 5 and 10 rounds before the forced finish.",
        points=rounds,
        measures=("forced", "mean_rounds", "tool_calls", "ceiling", "tokens"),
    ),
    Experiment(
        name="history-length",
        question="How much of the history does the surrogate need to see?",
        varies="The last 10 items (the paper's), 1, 3, 5, 20 and 50; what the recommenders read stays the same.",
        points=history_length,
    ),
    Experiment(
        name="candidates",
        question="How long should the tools' lists be, and how much should a ranking see?",
        varies="Lists of 20, 5, 10 and 50 items where a call names no length, 60 or 20 candidates in a rank prompt.",
        points=candidates,
        measures=("candidates", "ceiling", "mean_rounds", "tool_calls", "tokens"),
    ),
    Experiment(
        name="strategies",
        question="What do deciding round by round, ranking, several tools and thoughts bring?",
        varies="ToolRec, the methods that it is compared with, its ablations, each tool alone; recommenders alone beside.",
        points=strategies,
        measures=("finished", "mean_rounds", "tool_calls", "reasks", "ceiling", "tokens"),
        has_recommenders=True,
    ),
    Experiment(
        name="llms",
        question="Which LLM is the better surrogate?",
        varies="The endpoints of a YAML file (--endpoints), on the same users.",
        points=llms,
        measures=("finished", "mean_rounds", "tool_calls", "reasks", "tokens", "seconds"),
    ),
    Experiment(
        name="pool-size",
        question="What does a larger pool cost, in quality, time and memory?",
        varies="The data set's own pool, and with invented items up to a thousand, … a million; no surrogates.",
        points=pool_size,
        measures=("list_ms", "peak_gb", "index_s", "check_ms"),
    ),
    Experiment(
        name="position-bias",
        question="Does the order in which candidates are shown change what is recommended?",
        varies="Candidates of rank prompts newest first, and shuffled with five seeds.",
        points=position_bias,
        measures=("same_items", "same_first", "mean_rounds", "tool_calls"),
    ),
    Experiment(
        name="prompt-variants",
        question="How much depends on the form of the prompt?",
        varies="Native tool calls and the paper's text form, with 10 and 5 items of the history.",
        points=prompt_variants,
        measures=("same_items", *QUALITY),
    ),
)
"""In the order in which they are listed."""

EXPERIMENTS = {experiment.name: experiment for experiment in NAMED}
