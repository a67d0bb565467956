"""The policy `toolrec-rules-1`: which tool to call next, when to stop, and how to order. See docs/concepts/embedded-endpoint.md.

Its constants were fixed by reasoning and are part of the version: changing one asks for a new name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from toolrec.columns import PLAIN_BACKBONE
from toolrec.grammar import ItemLine
from toolrec.llm.embedded.reading import RankRequest, Situation, ToolList
from toolrec.llm.embedded.tastes import NOT_ATTRIBUTES, Taste, fields_of, number_in, overall_fits, own_fit, read_tastes

MODEL_NAME = "toolrec-rules-1"
LABEL = "embedded rules, not a language model"

MIN_LISTS = 3
"""Lists that the surrogate looks at before it judges that more promise little."""

MIN_TELLING = 0.1
"""An attribute on which two history items agree less than this tells nothing."""

MIN_NOVELTY = 0.2
"""Share of new items below which the last list says that the tools bring the same things again."""

MIN_FITTING = 0.5
"""A candidate fits when it agrees with the history at least half as well as the history with itself; when fewer than this
share of the candidates fit, sorting them is worth a call."""

DEFAULT_K, MAX_K = 20, 50
POSITION_OFFSET = 10
"""Position p of a list counts 10 / (9 + p): the first counts double the eleventh."""

RANK_LIST_WEIGHT = 0.5
"""A rank list orders what the retrieval lists brought, so it is half an opinion."""

AGREEMENT_WEIGHT, SCORE_WEIGHT, FIT_WEIGHT = 0.6, 0.3, 0.1
RANK_FIT_WEIGHT, RANK_SCORE_WEIGHT, RANK_ORDER_WEIGHT = 0.5, 0.3, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the rules answer: an action with its reason, (`list`) an ordered list for a rank prompt, or (`plan`) several calls."""

    name: Literal["retrieve", "rank", "finish", "list", "plan"]
    thought: str = ""
    attribute: str = ""
    k: int = 0
    items: tuple[ItemLine, ...] = ()
    calls: tuple[Decision, ...] = ()


def decide(situation: Situation) -> Decision:
    """The next action of a surrogate."""
    candidates = _candidates(situation)
    around = [fields_of(item) for item in candidates]
    names = [name for name in situation.attributes if name != PLAIN_BACKBONE]
    tastes = read_tastes(situation.history, names, around)
    if situation.plan_length:
        return _plan(situation, tastes)
    fits = overall_fits(around, tastes)
    own = own_fit(tastes)
    fitting = {item.item_id for item, fit in zip(candidates, fits, strict=True) if own > 0 and fit >= MIN_FITTING * own}
    action = None if situation.must_finish else _explore(situation, len(candidates), len(fitting), tastes)
    decision = action or _finish(situation, candidates, fits, fitting)
    return decision if situation.has_thoughts else replace(decision, thought="")


def order(request: RankRequest) -> Decision:
    """The list that answers a rank prompt."""
    seen = {item.item_id for item in request.history} | request.refused
    items = list({item.item_id: item for item in request.candidates if item.item_id not in seen}.values())
    around = [fields_of(item) for item in items]
    names = dict.fromkeys(name for fields in around for name in fields if name not in NOT_ATTRIBUTES)
    tastes = read_tastes(request.history, names, around)
    if request.attribute in tastes:
        fits = [tastes[request.attribute].fit(fields) for fields in around]
    else:
        fits = overall_fits(around, tastes)
    scores = _normalised(items)
    best = max(fits, default=0.0) or 1.0
    values = [
        RANK_FIT_WEIGHT * fit / best + RANK_SCORE_WEIGHT * score + RANK_ORDER_WEIGHT * _at(position)
        for position, (fit, score) in enumerate(zip(fits, scores, strict=True), start=1)
    ]
    return Decision(name="list", items=tuple(items[place] for place in _best_first(values)[: request.k]))


def _candidates(situation: Situation) -> list[ItemLine]:
    """Every item that a tool showed, once, in the order of appearance; the history and refused ids left out."""
    seen = {item.item_id for item in situation.history} | situation.refused
    found: dict[str, ItemLine] = {}
    for shown in situation.lists:
        for item in shown.items:
            if item.item_id not in seen:
                found.setdefault(item.item_id, item)
    return list(found.values())


def _explore(situation: Situation, num_candidates: int, num_fitting: int, tastes: dict[str, Taste]) -> Decision | None:
    """The tool call that promises most, or None where it is time to finish."""
    k = _usual_k(situation)
    untried = [name for name in situation.attributes if ("retrieve", name) not in situation.tried]
    if "retrieve" not in situation.tools:
        untried = []
    if PLAIN_BACKBONE in untried:
        thought = "First a plain look at what may come next, without any attribute."
        return Decision(name="retrieve", attribute=PLAIN_BACKBONE, k=k, thought=thought)
    telling = sorted((taste for taste in tastes.values() if taste.telling >= MIN_TELLING), key=lambda taste: -taste.telling)
    fresh = [taste for taste in telling if taste.attribute in untried]
    is_early = len(situation.lists) < MIN_LISTS
    if fresh and (is_early or _novelty(situation.lists) >= MIN_NOVELTY):
        so_far = f" Of {num_candidates} candidates so far {num_fitting} fit the history." if num_candidates else ""
        thought = f"{fresh[0].attribute} is telling: {fresh[0].summary}.{so_far}"
        return Decision(name="retrieve", attribute=fresh[0].attribute, k=k, thought=thought)
    is_mixed = num_fitting < MIN_FITTING * num_candidates
    is_enough = num_candidates > situation.list_length and num_fitting >= situation.list_length
    can_rank = telling and "rank" in situation.tools and ("rank", telling[0].attribute) not in situation.tried
    if can_rank and is_enough and (is_early or is_mixed):
        best = telling[0]
        thought = f"{num_fitting} of {num_candidates} candidates fit; sorting them by {best.attribute} ({best.summary})."
        return Decision(name="rank", attribute=best.attribute, k=k, thought=thought)
    if is_early and untried:
        thought = f"{untried[0]} tells little of this history, but one more list is worth a look."
        return Decision(name="retrieve", attribute=untried[0], k=k, thought=thought)
    return None


def _plan(situation: Situation, tastes: dict[str, Taste]) -> Decision:
    """The calls that would be made if nothing came in between: the plain list, and one by each attribute that tells something.

    Attributes that tell little fill it up to the lists that are looked at first; `Rank` is planned where those run out.
    """
    k = _usual_k(situation)
    telling = sorted((taste for taste in tastes.values() if taste.telling >= MIN_TELLING), key=lambda taste: -taste.telling)
    names = list(dict.fromkeys((PLAIN_BACKBONE, *(taste.attribute for taste in telling))))
    rest = [name for name in situation.attributes if name not in names]
    names += rest[: max(0, MIN_LISTS - len(names))]
    calls = [Decision(name="retrieve", attribute=name, k=k) for name in names if name in situation.attributes]
    if telling and "rank" in situation.tools and len(calls) < MIN_LISTS:
        calls.append(Decision(name="rank", attribute=telling[0].attribute, k=k))
    return Decision(name="plan", calls=tuple(calls[: situation.plan_length]))


def _usual_k(situation: Situation) -> int:
    return min(MAX_K, max(DEFAULT_K, 2 * situation.list_length))


def _finish(situation: Situation, candidates: Sequence[ItemLine], fits: Sequence[float], fitting: Collection[str]) -> Decision:
    """The final list: agreement of the lists, shown scores, fit with the history."""
    best = max(fits, default=0.0) or 1.0
    agreement, scores, num_lists = _opinions(situation.lists)
    values = [
        AGREEMENT_WEIGHT * agreement[item.item_id] + SCORE_WEIGHT * scores[item.item_id] + FIT_WEIGHT * fit / best
        for item, fit in zip(candidates, fits, strict=True)
    ]
    items = tuple(candidates[place] for place in _best_first(values)[: situation.list_length])
    why = "No more rounds." if situation.must_finish else "Further tools promise little."
    if not items:
        return Decision(name="finish", thought=f"{why} No tool has shown an item that is new.")
    shared = sum(num_lists[item.item_id] > 1 for item in items)
    num_fitting = sum(item.item_id in fitting for item in items)
    thought = f"{why} Of these {len(items)}, {shared} stand in several lists and {num_fitting} fit the history."
    return Decision(name="finish", items=items, thought=thought)


def _opinions(lists: Sequence[ToolList]) -> tuple[dict[str, float], dict[str, float], dict[str, int]]:
    """By item: agreement of the lists (0 to 1), mean normalised score (0 to 1), and in how many lists it stands."""
    agreement: dict[str, float] = {}
    scores: dict[str, float] = {}
    num_lists: dict[str, int] = {}
    total = sum(_weight(shown) for shown in lists) or 1.0
    for shown in lists:
        items = list({item.item_id: item for item in shown.items}.values())
        for position, (item, score) in enumerate(zip(items, _normalised(items), strict=True), start=1):
            weight, key = _weight(shown) / total, item.item_id
            agreement[key] = agreement.get(key, 0.0) + weight * _at(position)
            scores[key] = scores.get(key, 0.0) + weight * score
            num_lists[key] = num_lists.get(key, 0) + 1
    return agreement, scores, num_lists


def _weight(shown: ToolList) -> float:
    return RANK_LIST_WEIGHT if shown.name == "rank" else 1.0


def _at(position: int) -> float:
    return POSITION_OFFSET / (POSITION_OFFSET + position - 1)


def _normalised(items: Sequence[ItemLine]) -> list[float]:
    """Shown scores mapped to 0.5 (the list's lowest) to 1 (its highest), 0 where an item shows none."""
    shown = [_score(item) for item in items]
    known = [score for score in shown if score is not None]
    if not known:
        return [0.0] * len(items)
    low, high = min(known), max(known)
    width = (high - low) or 1.0
    return [0.0 if score is None else 0.5 + 0.5 * (score - low) / width for score in shown]


def _score(item: ItemLine) -> float | None:
    for name, values in reversed(item.fields):
        if name == "score":
            return number_in(values[0]) if values else None
    return None


def _novelty(lists: Sequence[ToolList]) -> float:
    """Share of the last list's items that no list before it showed."""
    if not lists or not lists[-1].items:
        return 1.0
    before = {item.item_id for shown in lists[:-1] for item in shown.items}
    return sum(item.item_id not in before for item in lists[-1].items) / len(lists[-1].items)


def _best_first(values: Sequence[float]) -> list[int]:
    """Places by value, highest first; ties in the order shown."""
    return sorted(range(len(values)), key=lambda place: (-round(values[place], 9), place))
