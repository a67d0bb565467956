"""A run as OpenTelemetry spans after the semantic conventions for generative AI: to a collector, or to a file.

Each user is a trace of its own:

    invoke_agent surrogate         the user
    ├── chat MODEL                 one for each round: what the LLM was asked for, re-asks included
    ├── execute_tool retrieve      the round's tool call
    └── …

Source: OpenTelemetry semantic conventions, "GenAI agent and framework spans" and "GenAI client spans".
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from toolrec import __version__
from toolrec.errors import ConfigError
from toolrec.exports.source import Source, is_finished, ndcg_at_10, position_of
from toolrec.records import Message, Round, Trace, Usage
from toolrec.util.extras import needed

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

PURPOSE = "--format otel"
AGENT_NAME = "surrogate"
PROVIDERS = {"embedded": "toolrec", "recording": "toolrec", "api.openai.com": "openai"}
"""`gen_ai.provider.name` by where the endpoint is; of others, the host's name."""
BATCH_SPANS = 512
TIMEOUT_S = 30.0
_NS = 1_000_000_000


class SpanSender:
    """Sends spans to an OTLP/HTTP endpoint.

    Args:
        endpoint: the whole URL, as `http://127.0.0.1:4318/v1/traces`. Headers come from OTEL_EXPORTER_OTLP_HEADERS.

    Raises:
        ConfigError: the exporter is not installed, or the endpoint is no HTTP address.
    """

    def __init__(self, endpoint: str) -> None:
        if not endpoint.startswith(("http://", "https://")):
            raise ConfigError("--otel-endpoint is an HTTP address", value=endpoint, allowed="as http://127.0.0.1:4318/v1/traces")
        module = needed("opentelemetry.exporter.otlp.proto.http.trace_exporter", extra="otel", purpose="--otel-endpoint")
        self._endpoint = endpoint
        self._exporter = module.OTLPSpanExporter(endpoint=endpoint, timeout=TIMEOUT_S)

    def send(self, spans: Sequence[ReadableSpan]) -> None:
        """Sends spans; the library tries again where the endpoint says that it is busy.

        Raises:
            ConfigError: the endpoint took none of them.
        """
        from opentelemetry.sdk.trace.export import SpanExportResult

        for begin in range(0, len(spans), BATCH_SPANS):
            if self._exporter.export(spans[begin : begin + BATCH_SPANS]) is not SpanExportResult.SUCCESS:
                raise ConfigError("the collector took no spans", value=self._endpoint, hint="see the log lines above")

    def close(self) -> None:
        """Closes the connection."""
        self._exporter.shutdown()


def write_spans(source: Source, path: Path) -> int:
    """Writes spans as OTLP JSON, one request a line, as the collector's file receiver reads them.

    Returns:
        The number of spans.

    Raises:
        ConfigError: the exporter is not installed.
    """
    encoder = needed("opentelemetry.exporter.otlp.proto.common.trace_encoder", extra="otel", purpose=PURPOSE)
    from google.protobuf.json_format import MessageToDict

    spans = Spans(source)
    num_spans = 0
    with path.open("w", encoding="utf-8") as lines:
        for trace in source.traces():
            of_user = spans.of(trace)
            request = MessageToDict(encoder.encode_spans(of_user), use_integers_for_enums=True)
            lines.write(json.dumps(_hex_ids(request), ensure_ascii=False) + "\n")
            num_spans += len(of_user)
    return num_spans


class Spans:
    """Makes a run's spans. Ids are hashes of run, user and place: what is sent twice is the same span twice."""

    def __init__(self, source: Source) -> None:
        needed("opentelemetry.sdk.trace", extra="otel", purpose=PURPOSE)
        from opentelemetry.sdk.resources import Resource

        self._source = source
        self._resource = Resource(
            {
                "service.name": "toolrec",
                "service.version": __version__,
                "toolrec.run": source.name,
                "toolrec.dataset": source.run.manifest["dataset"]["manifest"]["name"],
            }
        )
        self._key = f"{source.run.manifest['resume_key']}/{source.name}"
        url = str(source.settings["llm.base_url"])
        host = urlsplit(url).hostname or url
        self._provider = PROVIDERS.get(host, host)

    def of(self, trace: Trace) -> list[ReadableSpan]:
        """The spans of one user, the agent's first.

        Rounds are laid end to end: a run stores how long each took, and not when it began. Within a round, the tool's
        share of the time is not known: its span has no length.
        """
        began_ns, ended_ns = int(trace.started_s * _NS), int(trace.ended_s * _NS)
        spans = [
            self._span(
                trace,
                "agent",
                f"invoke_agent {AGENT_NAME}",
                (began_ns, max(ended_ns, began_ns)),
                self._of_user(trace),
                error=None if is_finished(trace) else trace.failure_kind or trace.ended_by,
                error_text=trace.error,
            )
        ]
        at_ns, before = began_ns, list(trace.opening)
        for done in trace.rounds:
            until_ns = max(at_ns, min(at_ns + int(done.duration_s * _NS), ended_ns))
            spans.extend(self._of_round(trace, done, before, (at_ns, until_ns)))
            before.extend(done.messages)
            at_ns = until_ns
        return spans

    def _of_round(
        self, trace: Trace, done: Round, before: Sequence[Message], times_ns: tuple[int, int]
    ) -> Iterator[ReadableSpan]:
        failure = done.observation.failure_kind if done.observation else None
        replies = [place for place, message in enumerate(done.messages) if message["role"] == "assistant"]
        if replies or failure:
            asked = [*before, *(done.messages[: replies[0]] if replies else ())]
            attributes = {
                **self._common("chat"),
                "gen_ai.request.model": self._source.model,
                "gen_ai.conversation.id": self._conversation(trace),
                "gen_ai.input.messages": _parts(asked),
                "gen_ai.output.messages": _parts([done.messages[place] for place in replies], is_output=True),
                "toolrec.round": done.number,
                "toolrec.reasks": done.counts.get("reask", 0),
                **_tokens(done.usage),
            }
            yield self._span(
                trace,
                f"chat-{done.number}",
                f"chat {self._source.model}",
                times_ns,
                attributes,
                parent="agent",
                is_client=True,
                error=failure,
                error_text=done.observation.error if failure and done.observation else None,
            )
        if done.call is not None and done.call.name != "finish":
            seen = done.observation
            error = seen.error if seen else None
            arguments = {"attribute": done.call.attribute, "k": done.call.k}
            attributes = {
                **self._common("execute_tool", has_provider=False),
                "gen_ai.tool.name": done.call.name,
                "gen_ai.tool.type": "function",
                "gen_ai.tool.call.arguments": json.dumps(arguments, ensure_ascii=False),
                "gen_ai.tool.call.result": seen.text if seen else "",
                "toolrec.round": done.number,
                "toolrec.items": len(seen.items) if seen else 0,
            }
            if done.call.call_id:
                attributes["gen_ai.tool.call.id"] = done.call.call_id
            end_ns = times_ns[1]
            yield self._span(
                trace,
                f"tool-{done.number}",
                f"execute_tool {done.call.name}",
                (end_ns, end_ns),
                attributes,
                parent="agent",
                error="tool_error" if error else None,
                error_text=error,
            )

    def _of_user(self, trace: Trace) -> dict[str, Any]:
        targets = self._source.targets(trace)
        attributes = {
            **self._common("invoke_agent"),
            "gen_ai.agent.name": AGENT_NAME,
            "gen_ai.agent.version": __version__,
            "gen_ai.request.model": self._source.model,
            "gen_ai.conversation.id": self._conversation(trace),
            "toolrec.user_id": trace.user_id,
            "toolrec.attempt": trace.attempt,
            "toolrec.ended_by": trace.ended_by,
            "toolrec.rounds": len(trace.rounds),
            "toolrec.final_items": [self._source.item_id(item) or str(item) for item in trace.final_items],
            **_tokens(trace.usage),
        }
        if targets is not None:
            attributes["toolrec.target_position"] = position_of(trace, targets)
            attributes["toolrec.ndcg_at_10"] = ndcg_at_10(trace, targets)
        return attributes

    def _common(self, operation: str, *, has_provider: bool = True) -> dict[str, Any]:
        return {"gen_ai.operation.name": operation, **({"gen_ai.provider.name": self._provider} if has_provider else {})}

    def _conversation(self, trace: Trace) -> str:
        return f"{self._source.name}/{trace.user_id}"

    def _id(self, trace: Trace, name: str, num_bytes: int) -> int:
        text = f"{self._key}/{trace.user_index}/{trace.attempt}/{name}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:num_bytes], "big") or 1

    def _span(
        self,
        trace: Trace,
        place: str,
        name: str,
        times_ns: tuple[int, int],
        attributes: Mapping[str, Any],
        *,
        parent: str | None = None,
        is_client: bool = False,
        error: str | None = None,
        error_text: str | None = None,
    ) -> ReadableSpan:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        def context(of: str) -> SpanContext:
            return SpanContext(
                trace_id=self._id(trace, "trace", 16),
                span_id=self._id(trace, of, 8),
                is_remote=False,
                trace_flags=TraceFlags(TraceFlags.SAMPLED),
            )

        return ReadableSpan(
            name=name,
            context=context(place),
            parent=context(parent) if parent else None,
            resource=self._resource,
            attributes={**attributes, **({"error.type": error} if error else {})},
            kind=SpanKind.CLIENT if is_client else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, error_text) if error else Status(StatusCode.UNSET),
            start_time=times_ns[0],
            end_time=times_ns[1],
            instrumentation_scope=InstrumentationScope("toolrec", __version__),
        )


def _tokens(usage: Mapping[str, Usage]) -> dict[str, int]:
    used = sum(usage.values(), Usage())
    return {
        "gen_ai.usage.input_tokens": used.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": used.cached_tokens,
        "gen_ai.usage.output_tokens": used.completion_tokens,
    }


def _parts(messages: Iterable[Message], *, is_output: bool = False) -> str:
    """Messages in the conventions' form: a role and parts of text, calls and their results.

    Why a reply ended is not stored: one with calls counts as `tool_call`, any other as `stop`.
    """
    made = []
    for message in messages:
        reason = {"finish_reason": "tool_call" if message.get("tool_calls") else "stop"} if is_output else {}
        made.append({"role": message["role"], "parts": list(_parts_of(message)), **reason})
    return json.dumps(made, ensure_ascii=False)


def _parts_of(message: Message) -> Iterator[dict[str, Any]]:
    content = message.get("content")
    if message["role"] == "tool":
        yield {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}
        return
    if content:
        yield {"type": "text", "content": content}
    for call in message.get("tool_calls") or ():
        arguments = call["function"]["arguments"]
        with contextlib.suppress(ValueError):  # then it stays as the LLM wrote it
            arguments = json.loads(arguments)
        yield {"type": "tool_call", "id": call["id"], "name": call["function"]["name"], "arguments": arguments}


def _hex_ids(request: dict[str, Any]) -> dict[str, Any]:
    """OTLP's JSON has ids in hexadecimal, where protobuf's has base64."""
    for resource in request.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                for name in ("traceId", "spanId", "parentSpanId"):
                    if name in span:
                        span[name] = base64.b64decode(span[name]).hex()
    return request
