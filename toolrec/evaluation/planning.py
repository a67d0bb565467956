"""How many users a paired comparison needs, from a finished run or from an assumed hit rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolrec.errors import ConfigError, RunFolderError
from toolrec.evaluation.statistics import minimum_detectable, power_of, spread_of, users_needed
from toolrec.evaluation.summary import rows_of

SIZES = (100, 200, 500, 1_000, 2_000, 5_000, 10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The standard deviation of a user's difference, and where it comes from."""

    deviation: float
    source: str
    users_in_data_set: int | None = None

    @classmethod
    def of_hits(cls, hit_rate: float, *, differing: float | None, difference: float) -> Spread:
        """For recall, where a user's difference is -1, 0 or 1.

        Args:
            hit_rate: share of users whose target is hit.
            differing: share of users whom one of the two recommenders hits and the other misses; None for two lists
                that have nothing to do with each other, the most that there can be for equal hit rates by chance.
            difference: the true difference.

        Raises:
            ConfigError: a share is out of range, or fewer users differ than the difference needs.
        """
        if not 0 < hit_rate < 1:
            raise ConfigError("a hit rate is between 0 and 1", value=hit_rate)
        share = 2 * hit_rate * (1 - hit_rate) if differing is None else differing
        if not 0 < share <= 1:
            raise ConfigError("a share of differing users is above 0 and at most 1", value=share)
        if abs(difference) > share:
            raise ConfigError("a difference cannot be larger than the share of users who differ", value=difference, allowed=share)
        how = "unrelated lists" if differing is None else "as given"
        source = f"assumed for recall: {share:.1%} of the users differ ({how}), hit rate {hit_rate:g}"
        return cls(deviation=float((share - difference**2) ** 0.5), source=source)

    @classmethod
    def of_summary(cls, summary: Mapping[str, Any], *, metric: str, row: str, reference: str) -> Spread:
        """What a finished run's interval stands for.

        Raises:
            ConfigError: the run has no such row, reference or figure.
            RunFolderError: it has too few users.
        """
        rows = rows_of(summary)
        if row not in rows:
            raise ConfigError("the run has no such row", value=row, allowed=list(rows))
        references = [key.removeprefix("difference_to_") for key in rows[row] if key.startswith("difference_to_")]
        if reference not in references or reference == row:
            raise ConfigError(f"{row} is compared to no such row", value=reference, allowed=[r for r in references if r != row])
        differences = rows[row][f"difference_to_{reference}"]
        if metric not in differences:
            raise ConfigError("the comparison has no such figure", value=metric, allowed=list(differences))
        low, high = differences[metric]["low"], differences[metric]["high"]
        num_users = rows[row]["num_users"]
        if low is None or high is None or high <= low:
            raise RunFolderError("the run has too few users to tell a spread from", value=num_users)
        confidence = float(summary["statistics"]["confidence"])
        return cls(
            deviation=spread_of(low, high, num_users, confidence=confidence),
            source=f"from {num_users:,} users of the run: {metric} of {row} minus {reference}",
            users_in_data_set=summary["protocol"].get("users_in_data_set"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSize:
    """A number of users with the difference that it finds, and its chance of finding the one that is looked for."""

    num_users: int
    detectable: float
    power: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many users are needed, and what other numbers would do; `sizes` ascend."""

    difference: float
    power: float
    confidence: float
    spread: Spread
    num_users: int
    sizes: tuple[PlannedSize, ...]

    @property
    def users_in_data_set(self) -> int | None:
        """None where no run tells."""
        return self.spread.users_in_data_set


def make_plan(difference: float, spread: Spread, *, power: float = 0.8, confidence: float = 0.95) -> Plan:
    """Plans a two-sided paired comparison by the normal approximation.

    Raises:
        ConfigError: the difference is 0 or beyond 1, or power or confidence are out of range.
    """
    if not 0 < abs(difference) < 1:
        raise ConfigError("a difference to look for is between 0 and 1, and not 0", value=difference)
    for name, value in (("power", power), ("confidence", confidence)):
        if not 0.5 <= value < 1:
            raise ConfigError(f"{name} is at least 0.5 and below 1", value=value)
    needed = users_needed(abs(difference), spread.deviation, confidence=confidence, power=power)
    in_data_set = spread.users_in_data_set
    numbers = sorted({*SIZES, needed, *([in_data_set] if in_data_set else [])})
    return Plan(
        difference=difference,
        power=power,
        confidence=confidence,
        spread=spread,
        num_users=needed,
        sizes=tuple(
            PlannedSize(
                num_users=number,
                detectable=minimum_detectable(spread.deviation, number, confidence=confidence, power=power),
                power=power_of(difference, spread.deviation, number, confidence=confidence),
            )
            for number in numbers
        ),
    )
