"""Trajectories for fine-tuning: conversations (supervised) and pairs of replies (preference), one JSON object a line.

Messages and tools have OpenAI's chat form, which TRL and OpenAI's own fine-tuning read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from toolrec.errors import ConfigError
from toolrec.exports.source import Source, UserSplit, is_finished, ndcg_at_10, position_of, user_split
from toolrec.records import Message, Round, Trace
from toolrec.surrogate.config import DEFAULT_STRATEGY, SurrogateConfig
from toolrec.surrogate.loop import TOOL_NAMES, protocol_rules
from toolrec.surrogate.prompting import Offer

Kept = Literal["hits", "finished", "all"]
PairKind = Literal["reask", "outcome", "hindsight"]
_OFFERED_ALL = (DEFAULT_STRATEGY, "toolrec.surrogate:Surrogate")
"""The strategy that is offered every tool, by its name and by that of earlier versions."""
PAIR_KINDS: tuple[PairKind, ...] = get_args(PairKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Which users and which trajectories are exported.

    Attributes:
        user_split: the part of the users; None for all of them.
        split_seed: seed of the parts.
        kept: whose trajectories: users with a hit, users that finished, or all.
        pairs: kinds of preference pairs.
    """

    user_split: UserSplit | None = "train"
    split_seed: int = 0
    kept: Kept = "finished"
    pairs: tuple[PairKind, ...] = PAIR_KINDS


def pair_kinds(text: str) -> tuple[PairKind, ...]:
    """Kinds of pairs from a text with commas.

    Raises:
        ConfigError: an unknown one, or none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = next((name for name in names if name not in PAIR_KINDS), None)
    if wrong is not None or not names:
        raise ConfigError("unknown kind of pairs", value=wrong or text, allowed=PAIR_KINDS)
    return tuple(kind for kind in PAIR_KINDS if kind in names)


def write_chats(source: Source, path: Path, options: TrainingOptions) -> Counter[str]:
    """Writes one conversation a line, without the replies that were not accepted.

    Returns:
        `rows`, and the users left out by reason.

    Raises:
        ConfigError: the data set is gone, so that nobody knows which users hit.
    """
    source.needed_dataset("a training file")
    tools, counts = tools_of(source), Counter[str]()
    with path.open("w", encoding="utf-8") as lines:
        for trace in _chosen(source, options, counts):
            messages = [*trace.opening, *(message for done in trace.rounds for message in accepted_messages(done))]
            row = {"messages": messages, **_with_tools(tools), **_about(source, trace, options)}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            counts["rows"] += 1
    return counts


def write_pairs(source: Source, path: Path, options: TrainingOptions, *, against: Source | None = None) -> Counter[str]:
    """Writes one pair a line: a prompt, a chosen and a rejected continuation of it.

    reask      the reply that was accepted in a round, and the first one that was refused there
    outcome    of two runs' whole trajectories of a user from the same opening, the one with the higher NDCG@10 (`against`)
    hindsight  the final list with the held-out item moved to its first place, and the list as given; only where a tool had
               brought the item, so that the surrogate could have known it

    Returns:
        `rows`, the pairs by kind, and the users left out by reason.

    Raises:
        ConfigError: the data set is gone, or `against` is a run on other data.
    """
    source.needed_dataset("a training file")
    if against is not None:
        for name in ("dataset_checksum", "split"):
            if against.settings[name] != source.settings[name]:
                raise ConfigError("the other run was made on other data", value=against.name, hint=f"{name} differs")
    others = {} if against is None else {trace.user_index: trace for trace in against.traces()}
    tools, counts = tools_of(source), Counter[str]()
    with path.open("w", encoding="utf-8") as lines:
        for trace in _chosen(source, options, counts):
            for kind, pair in _pairs(source, trace, others.get(trace.user_index), options):
                row = {**pair, **_with_tools(tools), "pair": kind, **_about(source, trace, options)}
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
                counts.update(("rows", kind))
    return counts


def tools_of(source: Source) -> Sequence[dict[str, Any]] | None:
    """The tools' schemas as the surrogates were sent them; None where they were sent none, or another strategy's are unknown."""
    is_offered_all = source.settings.get("strategy", DEFAULT_STRATEGY) in _OFFERED_ALL
    if source.settings.get("surrogate.protocol") != "tools" or not is_offered_all:
        return None
    config = SurrogateConfig(
        protocol="tools", max_k=source.settings["surrogate.max_k"], list_length=source.settings["surrogate.list_length"]
    )
    offer = Offer(tool_names=TOOL_NAMES, attributes=tuple(_attributes(source)))
    return protocol_rules(config, offer).schemas(is_last=False)


def _attributes(source: Source) -> list[str]:
    chosen = source.settings["attributes"]
    if isinstance(chosen, (list, tuple)):
        return list(chosen)
    known = source.needed_dataset("a training file").pool.attributes
    members = source.run.manifest["recommenders"]["manifest"]["members"]
    return [member["name"] for member in members if member["name"] in known]


def accepted_messages(done: Round) -> tuple[Message, ...]:
    """A round's messages without the replies that were refused, and without the refusals.

    What stands before the first reply answers calls of an earlier one, and stays.
    """
    replies = [place for place, message in enumerate(done.messages) if message["role"] == "assistant"]
    return done.messages if len(replies) < 2 else done.messages[: replies[0]] + done.messages[replies[-1] :]


def _chosen(source: Source, options: TrainingOptions, counts: Counter[str]) -> Iterator[Trace]:
    for trace in source.traces():
        if options.user_split is not None and user_split(trace.user_id, options.split_seed) != options.user_split:
            counts["another part of the users"] += 1
        elif options.kept != "all" and not is_finished(trace):
            counts["not finished"] += 1
        elif options.kept == "hits" and not position_of(trace, source.targets(trace)):
            counts["not a hit"] += 1
        else:
            yield trace


def _with_tools(tools: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
    return {} if tools is None else {"tools": tools}


def _about(source: Source, trace: Trace, options: TrainingOptions) -> dict[str, Any]:
    """What stands beside every trajectory: whose it is, in which part, and what it came to on which targets."""
    targets = source.targets(trace)
    return {
        "user_id": trace.user_id,
        "split": user_split(trace.user_id, options.split_seed),
        "split_seed": options.split_seed,
        "target_split": source.target_split,
        "run": source.name,
        "dataset_checksum": source.settings["dataset_checksum"],
        "model": source.model,
        "ended_by": trace.ended_by,
        "num_rounds": len(trace.rounds),
        "target_position": position_of(trace, targets),
        "ndcg_at_10": ndcg_at_10(trace, targets),
    }


def _pairs(
    source: Source, trace: Trace, other: Trace | None, options: TrainingOptions
) -> Iterable[tuple[PairKind, dict[str, Any]]]:
    if "reask" in options.pairs:
        yield from (("reask", pair) for pair in _reask_pairs(trace))
    if "outcome" in options.pairs and other is not None and other.opening == trace.opening:
        own, theirs = (ndcg_at_10(one, source.targets(one)) or 0.0 for one in (trace, other))
        if own != theirs:
            better, worse = (trace, other) if own > theirs else (other, trace)
            yield (
                "outcome",
                {
                    "prompt": list(trace.opening),
                    "chosen": [message for done in better.rounds for message in accepted_messages(done)],
                    "rejected": [message for done in worse.rounds for message in accepted_messages(done)],
                },
            )
    if "hindsight" in options.pairs:
        pair = _hindsight_pair(source, trace)
        if pair is not None:
            yield "hindsight", pair


def _reask_pairs(trace: Trace) -> Iterator[dict[str, Any]]:
    before = list(trace.opening)
    for done in trace.rounds:
        replies = [place for place, message in enumerate(done.messages) if message["role"] == "assistant"]
        if len(replies) > 1 and done.call is not None:
            first, last = replies[0], replies[-1]
            yield {
                "prompt": [*before, *done.messages[:first]],
                "chosen": [done.messages[last]],
                "rejected": [done.messages[first]],
            }
        before.extend(accepted_messages(done))


def _hindsight_pair(source: Source, trace: Trace) -> dict[str, Any] | None:
    """The last reply, and the same with the target first. Only native calls of `finish` are rewritten, not texts."""
    targets, last, pool = source.targets(trace), trace.rounds[-1] if trace.rounds else None, source.told_pool
    if not targets or pool is None or last is None or last.call is None or last.call.name != "finish":
        return None
    known = {one.item_index for one in trace.candidates}
    target = next((item for item in targets if item in known), None)
    if target is None or trace.final_items[:1] == (target,):
        return None
    said = accepted_messages(last)
    reply = said[-1] if said and said[-1]["role"] == "assistant" else None
    calls = reply.get("tool_calls") if reply else None
    if reply is None or not calls or len(calls) != 1 or calls[0]["function"]["name"] != "finish":
        return None
    listed = [pool.item_ids[item] for item in (target, *(item for item in trace.final_items if item not in (target, 0)))]
    arguments = json.dumps({"items": listed[: len(trace.final_items)]}, ensure_ascii=False)
    better = {**calls[0], "function": {**calls[0]["function"], "arguments": arguments}}
    before = [message for done in trace.rounds[:-1] for message in accepted_messages(done)]
    return {
        "prompt": [*trace.opening, *before, *said[:-1]],
        "chosen": [{**reply, "tool_calls": [better]}],
        "rejected": [reply],
    }
