"""Several runs over the same users: paired differences of the surrogates' figures, and the settings that differ.

Shapes: `B` users, `M` figures, `R` runs beside the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toolrec.errors import ConfigError
from toolrec.evaluation.differences import describe_differences
from toolrec.evaluation.statistics import POWER, Resampling, holm, paired_p_values, score_intervals
from toolrec.metrics import values_of
from toolrec.report.source import RunSource, cut

METRICS = ("ndcg@10", "recall@10", "mrr@10")
LEFT_OUT = ("prompts",)


def refuse_other_users(sources: Sequence[RunSource]) -> None:
    """Runs can be compared over the same data set and split only.

    Raises:
        ConfigError: two of them differ in it.
    """
    first = sources[0]
    for source in sources[1:]:
        for name, words in (("dataset_checksum", "data set"), ("split", "split")):
            if source.settings.get(name) != first.settings.get(name):
                raise ConfigError(
                    f"these runs are over another {words}, so their users cannot be compared",
                    value=f"{first.path} and {source.path}",
                    hint="give runs over the same data set and split",
                )


def compare_json(sources: Sequence[RunSource], *, resampling: Resampling | None = None) -> dict[str, Any]:
    """Each run against the first, over the users that all of them have; Holm's correction is over the runs of one figure."""
    resampling = resampling or Resampling()
    common = sorted(set.intersection(*(set(source.users["user_index"].tolist()) for source in sources)))
    found: dict[str, Any] = {
        "num_common": len(common),
        "confidence": resampling.confidence,
        "power": POWER,
        "settings": _settings(sources),
        "rows": [],
        "runs": [],
        "has_targets": all(source.positions is not None for source in sources),
    }
    if not found["has_targets"] or len(common) < 2:
        return found
    values = [_values(source, common) for source in sources]
    for source, value_BM in zip(sources, values, strict=True):
        low_M, high_M = score_intervals(value_BM, resampling)
        found["runs"].append(
            {
                "figures": {
                    metric: [float(value_BM[:, number].mean()), float(low_M[number]), float(high_M[number])]
                    for number, metric in enumerate(METRICS)
                },
                "tokens": _mean_tokens(source, common),
                "usd": _mean_usd(source, common),
            }
        )
    differences = [value_BM - values[0] for value_BM in values[1:]]
    p_RM = [paired_p_values(difference_BM, resampling) for difference_BM in differences]
    corrected_RM = np.stack([holm(np.array([p_M[m] for p_M in p_RM])) for m in range(len(METRICS))], axis=1)
    for number, (difference_BM, p_M, holm_M) in enumerate(zip(differences, p_RM, corrected_RM, strict=True), start=1):
        for metric, said in zip(METRICS, describe_differences(difference_BM, p_M, holm_M, resampling), strict=True):
            found["rows"].append(
                {
                    "run": number,
                    "metric": metric,
                    "mean": said["mean"],
                    "low": said["low"],
                    "high": said["high"],
                    "p": said["p_value"],
                    "p_holm": said["p_value_holm"],
                    "better": said["num_better"],
                    "worse": said["num_worse"],
                    "least": said["minimum_detectable"],
                }
            )
    return found


def _places(source: RunSource, common: Sequence[int]) -> list[int]:
    place = {int(user): number for number, user in enumerate(source.users["user_index"])}
    return [place[user] for user in common]


def _values(source: RunSource, common: Sequence[int]) -> np.ndarray:
    positions = source.positions
    assert positions is not None
    return values_of(positions[_places(source, common)], METRICS)


def _mean_tokens(source: RunSource, common: Sequence[int]) -> float:
    usages = source.users["usage"].iloc[_places(source, common)]
    tokens = [sum(int(part["prompt_tokens"] or 0) + int(part["completion_tokens"] or 0) for part in parts) for parts in usages]
    return float(np.mean(tokens))


def _mean_usd(source: RunSource, common: Sequence[int]) -> float | None:
    if source.run.price is None:
        return None
    usages = [list(parts) for parts in source.users["usage"].iloc[_places(source, common)]]
    return float(np.mean(np.array(source.usd(usages), dtype=np.float64)))


def _settings(sources: Sequence[RunSource]) -> list[dict[str, Any]]:
    """Settings that change results and are not the same in all runs."""
    names = dict.fromkeys(name for source in sources for name in source.settings if name not in LEFT_OUT)
    found = []
    for name in names:
        values = [_shown(source.settings, name) for source in sources]
        if len(set(values)) > 1:
            found.append({"name": name, "values": values})
    return found


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return cut(settings.get(name, "(default)"), 200)
