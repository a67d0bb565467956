"""What became of a user's target: which tool brought it, and in which round it was lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FateKind = Literal["hit", "failed", "masked", "not_brought", "too_deep", "ranked_out", "left_out"]
"""`hit`: in the final list. `failed`: the user gave no list. `masked`: the target is in the history, which tools leave out.
`not_brought`: no tool returned it. `too_deep`: only beyond the first places of any list. `ranked_out`: a later ranking moved
it behind the first places, or dropped it. `left_out`: the surrogate had it before it and did not take it."""

RANK_MARK_START = "Rank["

SHORT: dict[FateKind, str] = {
    "hit": "hit",
    "not_brought": "no tool brought it",
    "too_deep": "too deep in every list",
    "ranked_out": "ranked out",
    "left_out": "left out at the end",
    "failed": "user failed",
    "masked": "masked",
}
"""Of every kind, the words for choices and charts; `Fate.where` begins with them."""

CAUSES: tuple[FateKind, ...] = ("not_brought", "too_deep", "ranked_out", "left_out", "masked")
"""Why a finished user is a miss: each of them is exactly one of these."""

BADGES: dict[FateKind, str] = {"ranked_out": "lost {} here", "left_out": "lost {} here", "failed": "lost {} here",
                               "too_deep": "had {} nearest here"}  # fmt: skip
"""What marks the round `Fate.round`; `{}` stands for the target."""

NEAREST_FIRST: tuple[FateKind, ...] = ("hit", "ranked_out", "left_out", "failed", "too_deep", "not_brought", "masked")
"""Which of several targets tells of the user: the one that came nearest to a hit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A tool's list on which the target was; `position` is 0 for a list without it."""

    round: int
    mark: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of the target.

    Attributes:
        kind: see `FateKind`.
        round: where it was lost, or for `too_deep` where it stood highest; of a hit, where it was first brought; 0 for none.
        mark: of the tool that brought it first; "" where none did.
        brought_round: of that tool's list; 0 where none did.
        position: its best position on any list; 0 where it was on none.
    """

    kind: FateKind
    round: int = 0
    mark: str = ""
    brought_round: int = 0
    position: int = 0

    @property
    def where(self) -> str:
        """Where it was lost, as the table of users and the trajectory both say it; empty for a hit."""
        if self.kind == "hit":
            return ""
        if self.kind == "too_deep":
            return f"{SHORT[self.kind]}, nearest in round {self.round}"
        return f"{SHORT[self.kind]}, round {self.round}" if self.kind in BADGES and self.round else SHORT[self.kind]

    def why(self, *, list_length: int, failure: str = "") -> str:
        """How it was lost, in words that go on after `where`; empty for a hit.

        Args:
            list_length: places of the final list.
            failure: how the user failed.
        """
        if self.kind == "failed":
            return f"the user gave no list ({failure.replace('_', ' ')})" if failure else "the user gave no list"
        first = f"the first {list_length}"
        return {
            "hit": "",
            "not_brought": "it is on no list that a tool returned",
            "too_deep": f"every tool that returned it listed it beyond {first}, at best at position {self.position}",
            "ranked_out": f"the ranking there moved it out of {first}",
            "left_out": "the final list, given in this last round, left it out",
            "masked": "it is in the history, and tools leave out what is there, so it cannot be hit",
        }[self.kind]


def fate_of(
    lists: Sequence[Sighting], *, is_hit: bool, is_finished: bool, is_masked: bool, num_rounds: int, list_length: int
) -> Fate:
    """The fate of one user's target.

    Args:
        lists: every tool's list of the user in the order of the rounds, with the target's position on it.
        is_hit: whether the final list holds the target.
        is_finished: whether the surrogate gave a list at all.
        is_masked: whether the target is in the history and the tools leave out what is there.
        num_rounds: rounds of the user; the last one is where it finished, or failed.
        list_length: places of the final list.
    """
    seen = [sighting for sighting in lists if sighting.position]
    if not seen:
        if is_hit and is_finished:
            return Fate(kind="hit")
        if not is_finished:
            return Fate(kind="failed", round=num_rounds)
        return Fate(kind="masked" if is_masked else "not_brought")
    first = seen[0]
    best = min(seen, key=lambda sighting: (sighting.position, sighting.round))

    def fate(kind: FateKind, round: int) -> Fate:
        return Fate(kind=kind, round=round, mark=first.mark, brought_round=first.round, position=best.position)

    if not is_finished:
        return fate("failed", num_rounds)
    if is_hit:
        return fate("hit", first.round)
    if best.position > list_length:
        return fate("too_deep", best.round)
    last_good = max(sighting.round for sighting in seen if sighting.position <= list_length)
    for later in lists:
        is_out = later.position == 0 or later.position > list_length
        if later.round > last_good and later.mark.startswith(RANK_MARK_START) and is_out:
            return fate("ranked_out", later.round)
    return fate("left_out", num_rounds)


def nearest_fate(fates: Sequence[Fate]) -> Fate:
    """Of a user's targets, the fate of the one that came nearest to a hit; of equal ones the first."""
    return min(fates, key=lambda fate: NEAREST_FIRST.index(fate.kind))
