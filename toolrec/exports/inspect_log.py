"""A run as a log of inspect_ai, written by inspect_ai's own library: one sample a user."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from toolrec import __version__
from toolrec.errors import ConfigError
from toolrec.evaluation.traces import action_text
from toolrec.exports.source import Source, is_finished, ndcg_at_10, position_of
from toolrec.metrics import DEPTHS
from toolrec.records import Message, Trace, Usage
from toolrec.runs.folder import SUMMARY
from toolrec.util.extras import needed

LogKind = Literal["eval", "json"]
SUFFIXES: dict[str, LogKind] = {".eval": "eval", ".json": "json"}
PURPOSE = "--format inspect"


def check_name(path: Path) -> LogKind:
    """The log's form by its file's name: `.eval` is compressed and opened part by part, `.json` is one text.

    Raises:
        ConfigError: the name has another ending.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError("inspect_ai reads other names", value=path.name, allowed=[f"*{suffix}" for suffix in SUFFIXES])
    return SUFFIXES[path.suffix]


def write_inspect_log(source: Source, path: Path, *, kind: LogKind = "eval") -> int:
    """Writes the log.

    Returns:
        The number of samples.

    Raises:
        ConfigError: inspect_ai is not installed.
    """
    log = needed("inspect_ai.log", extra="inspect", purpose=PURPOSE)
    samples = [_sample(source, trace) for trace in source.traces()]
    # The library writes a beginning of the file under other names: a folder of its own, beside the place.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".inspect-") as folder:
        made = Path(folder) / f"log.{kind}"
        log.write_eval_log(_log(source, samples), str(made), format=kind)
        made.replace(path)
    return len(samples)


def _log(source: Source, samples: Sequence[Any]) -> Any:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalPlan, EvalPlanStep, EvalResults, EvalSpec, EvalStats

    settings, manifest = source.settings, source.run.manifest
    spec = EvalSpec(
        eval_id=manifest["resume_key"][:22],
        run_id=manifest["resume_key"][:22],
        task_id=manifest["resume_key"][:22],
        created=_iso(source.created_s),
        task=f"toolrec/{manifest['dataset']['manifest']['name']}",
        dataset=EvalDataset(
            name=manifest["dataset"]["manifest"]["name"], samples=len(samples), sample_ids=[one.id for one in samples]
        ),
        model=f"toolrec/{source.model}",
        config=EvalConfig(),
        packages={"toolrec": __version__},
        metadata={"settings": settings, "status": source.run.status},
    )
    plan = EvalPlan(steps=[EvalPlanStep(solver=str(settings.get("strategy", "surrogate")), params={})])
    ends_s = [trace.completed_at for trace in samples if trace.completed_at]
    return EvalLog(
        status="success" if source.run.status == "complete" else "started" if source.run.status == "running" else "cancelled",
        eval=spec,
        plan=plan,
        results=EvalResults(
            total_samples=len(samples),
            completed_samples=sum(one.metadata["is_finished"] for one in samples),
            scores=list(_scores(source)),
        ),
        stats=EvalStats(started_at=_iso(source.created_s), completed_at=max(ends_s, default="")),
        samples=list(samples),
    )


def _scores(source: Source) -> Iterable[Any]:
    """The surrogate's figures as `summary.json` has them, with their intervals: nothing is averaged a second time."""
    from inspect_ai.log import EvalMetric, EvalScore

    if not (source.run.path / SUMMARY).is_file():
        return
    row = source.run.summary_json["surrogate"]
    for k in DEPTHS:
        for name in (f"recall@{k}", f"ndcg@{k}", f"mrr@{k}"):
            if name not in row["intervals"]:
                continue
            low, high = row["intervals"][name] or (None, None)
            mean = EvalMetric(name="mean", value=row[name], metadata={"low": low, "high": high, "level": 0.95})
            yield EvalScore(name=name, scorer="toolrec", metrics={"mean": mean}, scored_samples=row["num_users"])


def _sample(source: Source, trace: Trace) -> Any:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score

    targets = source.targets(trace)
    position = position_of(trace, targets)
    said = [*trace.opening, *(message for done in trace.rounds for message in done.messages)]
    messages = _chat(trace, said)
    final = [source.item_id(item) or ("(empty)" if not item else str(item)) for item in trace.final_items]
    scores = None
    if position is not None:
        explanation = f"the target is at position {position}" if position else "the target is not on the list"
        answer = ", ".join(final)
        values = {"hit@10": float(1 <= position <= 10), "ndcg@10": ndcg_at_10(trace, targets)}
        scores = {name: Score(value=value, answer=answer, explanation=explanation) for name, value in values.items()}
    used = _usage(sum(trace.usage.values(), Usage()))
    output = ModelOutput.from_content(model=source.model, content=", ".join(final))
    return EvalSample(
        id=trace.user_id,
        epoch=1,
        uuid=f"{source.run.manifest['resume_key'][:16]}-{trace.user_index}",
        input=_chat(trace, trace.opening),
        target=[f"<{source.item_id(item)}> {source.title(item)}" for item in targets or ()],
        messages=messages,
        output=output,
        scores=scores,
        error=_error(trace),
        metadata={
            "user_index": trace.user_index,
            "attempt": trace.attempt,
            "ended_by": trace.ended_by,
            "is_finished": is_finished(trace),
            "failure_kind": trace.failure_kind,
            "target_position": position,
            "final_list": final,
            "actions": [action_text(done.call) for done in trace.rounds],
            "counts": dict(trace.counts),
        },
        model_usage={f"toolrec/{source.model}": used},
        started_at=_iso(trace.started_s),
        completed_at=_iso(trace.ended_s),
        total_time=trace.ended_s - trace.started_s,
        working_time=sum(done.duration_s for done in trace.rounds),
    )


def _error(trace: Trace) -> Any:
    from inspect_ai.log import EvalError

    if is_finished(trace):
        return None
    message = trace.error or trace.ended_by
    return EvalError(message=message, traceback=message, traceback_ansi=message)


def _usage(used: Usage) -> Any:
    from inspect_ai.model import ModelUsage

    return ModelUsage(
        input_tokens=used.prompt_tokens - used.cached_tokens,
        input_tokens_cache_read=used.cached_tokens,
        output_tokens=used.completion_tokens,
        total_tokens=used.prompt_tokens + used.completion_tokens,
    )


def _chat(trace: Trace, messages: Sequence[Message]) -> list[Any]:
    """Chat messages in inspect_ai's form; ids are the message's place, so that the same run gives the same log."""
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageTool, ChatMessageUser
    from inspect_ai.tool import ToolCall

    made: list[Any] = []
    functions: dict[str, str] = {}
    for number, message in enumerate(messages, start=1):
        content = message.get("content")
        common: dict[str, Any] = {"id": f"{trace.user_index}-{number}", "content": content if isinstance(content, str) else ""}
        match message["role"]:
            case "system":
                made.append(ChatMessageSystem(**common))
            case "assistant":
                calls = []
                for call in message.get("tool_calls") or ():
                    name, arguments = call["function"]["name"], call["function"]["arguments"]
                    functions[call["id"]] = name
                    parsed, error = _arguments(arguments)
                    calls.append(ToolCall(id=call["id"], function=name, arguments=parsed, parse_error=error))
                made.append(ChatMessageAssistant(**common, tool_calls=calls or None))
            case "tool":
                call_id = message["tool_call_id"]
                made.append(ChatMessageTool(**common, tool_call_id=call_id, function=functions.get(call_id)))
            case _:
                made.append(ChatMessageUser(**common))
    return made


def _arguments(text: str) -> tuple[dict[str, Any], str | None]:
    try:
        parsed = json.loads(text)
    except ValueError as error:
        return {"raw": text}, str(error)
    return (parsed, None) if isinstance(parsed, dict) else ({"raw": text}, "not an object")


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))
