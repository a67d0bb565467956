"""The client: one call of an OpenAI-like chat endpoint, with its retries, limits and peculiarities."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import httpx2
import openai

from toolrec.errors import ContextTooLongError, LLMError, LLMRefusedError, LLMUnavailableError, MessagesRefusedError
from toolrec.grammar import clean
from toolrec.llm.caller import CALLER, Caller
from toolrec.llm.config import LLMConfig
from toolrec.llm.connections import Answer, Connections, http_client
from toolrec.llm.flow.gate import Gate, Health
from toolrec.llm.flow.rate_headers import read_exhausted_s
from toolrec.llm.message_forms import STATUSES, in_forms, taught_form
from toolrec.llm.refusals import TOKEN_LIMITS, ErrorBody, mask, without_secrets
from toolrec.llm.replies import UnusableReplyError, cut_at, error_in, finish_reason_in, read_completion, read_usage
from toolrec.llm.response_formats import format_level_of, is_about_format, simpler_format
from toolrec.llm.retry import (
    MALFORMED,
    REFUSING_STATUS,
    AttemptFailedError,
    ParameterRefusedError,
    build_retrying,
    is_retryable_status,
    read_retry_after,
)
from toolrec.records import Completion, Message, Usage

CHAT_PATH = "/chat/completions"
MODELS_PATH = "/models"
RAISED_OUTPUT_TOKENS = 4
"""How often the limit of output tokens is taken for a call whose reply ended there with nothing in it."""
MIN_LONG_WAIT_S = 900.0
"""An endpoint that asks to wait longer than this, and than a call may take, stops the run: its users fail otherwise."""
MAX_REPLY_MODELS = 20
REPLY_MODEL = "reply_model:"
"""Events of this kind count the answers of each model, by the name and `system_fingerprint` that the endpoint gives."""
_TRANSPORT_ERRORS = (openai.APIConnectionError, httpx2.HTTPError, aiohttp.ClientError, OSError)
_NOT_AT_HOME: Any = {"OpenAI-Organization": openai.omit, "OpenAI-Project": openai.omit}
"""Headers that the OpenAI client would fill from the environment for any address."""
_ONLY_BEARER: Any = {"security": {"bearer_auth": True}}


@dataclass(slots=True)
class _Call:
    """One call under way: what is asked, and what happened so far.

    `paid` is what the latest answer cost, by its own word, and `lost` what earlier ones did that held no reply.
    """

    messages: Sequence[Message]
    tools: Sequence[dict[str, Any]] | None
    stop: Sequence[str]
    response_format: dict[str, Any] | None
    caller: Caller | None
    total_timeout_s: float
    started_s: float = field(default_factory=time.monotonic)
    gate_s: float = 0.0
    num_attempts: int = 0
    num_failures: int = 0
    num_malformed: int = 0
    is_probing: bool = False
    last_reason: str = ""
    last_status: int | None = None
    sent: dict[str, Any] = field(default_factory=dict)
    forms_tried: set[str] = field(default_factory=set)
    output_tokens_factor: int = 1
    paid: Usage = field(default_factory=Usage)
    lost: Usage = field(default_factory=Usage)

    @property
    def spent_s(self) -> float:
        """Seconds in requests and between attempts; waiting at the gate is not the call's doing."""
        return time.monotonic() - self.started_s - self.gate_s

    @property
    def left_s(self) -> float:
        """Seconds that the call may still take."""
        return self.total_timeout_s - self.spent_s


class OpenAIChat:
    """An LLM behind an OpenAI-like endpoint; one per event loop.

    Args:
        config: address, model, caps.
        gate: lets requests through; None for one of its own that keeps `config.concurrency`.

    Attributes:
        gate: what every request passes; its totals say how each ended.
        counts: what else happened over all calls: `retry`, `parameter_refused:NAME`, `usage_missing`, `cut_by_client`,
            `message_form:NAME`, `output_limit_raised`, `prompt_not_growing`, `reply_model:NAME (FINGERPRINT)`.
        refused_parameters: what this endpoint did not take and is no longer sent.
        format_level: how far response formats are simplified, 0 for not at all.
        message_forms: the forms of `message_forms.FORMS` that its refusals asked for.

    Raises:
        ConfigError: OpenAI's own address without a key.
    """

    def __init__(self, config: LLMConfig, gate: Gate | None = None) -> None:
        self.config = config
        self.gate = gate or Gate(limit=config.concurrency)
        self.counts: Counter[str] = self.gate.totals.counts
        self.refused_parameters: set[str] = set()
        self.message_forms: set[str] = set()
        self.format_level = 0
        self._reply_models: dict[tuple[str, str], str] = {}
        key = config.read_key()
        headers = config.read_headers()
        self._secrets = (key, *headers.values())
        self._kept_secrets = (*((key,) if config.has_key else ()), *headers.values())
        self._extra = config.extra_fields
        self._token_limit = TOKEN_LIMITS[1] if config.is_openai else TOKEN_LIMITS[0]
        self._retrying = build_retrying(config)
        self._http = http_client(config)
        self._client = openai.AsyncOpenAI(
            base_url=config.address,
            default_query=config.query or None,
            api_key=key,
            max_retries=0,
            timeout=config.timeout_s,
            default_headers={**({} if config.is_openai else _NOT_AT_HOME), **headers},
            http_client=self._http,
        )

    def __repr__(self) -> str:
        return f"OpenAIChat({self.config!r})"

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def __aenter__(self) -> OpenAIChat:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        stop: Sequence[str] | None = None,
        response_format: dict[str, Any] | None = None,
    ) -> Completion:
        """One reply; every attempt passes the gate anew, and what it waits there counts against no limit of time.

        Raises:
            LLMUnavailableError: every attempt failed, the total time is over, or the user's failed requests are used up.
            LLMRefusedError: the endpoint's answer is final.
            ContextTooLongError: the messages do not fit.
        """
        caller = CALLER.get()
        if caller is not None and caller.exhausted is not None:
            raise LLMUnavailableError(caller.exhausted)
        call = _Call(messages, tools, tuple(stop or ()), response_format, caller, self.config.total_timeout_s)
        try:
            return await self._retrying.copy()(self._attempt, call)
        except AttemptFailedError as error:
            failure = error
        raise self._given_up(failure, call)

    async def list_models(self) -> list[str] | None:
        """The models that the endpoint names, or None where it has no such list; one request, no retries.

        Raises:
            LLMUnavailableError: the endpoint cannot be reached.
            LLMRefusedError: the key is not taken.
        """
        try:
            async with asyncio.timeout(self.config.timeout_s):
                response = await self._client.get(MODELS_PATH, cast_to=httpx2.Response, options=_ONLY_BEARER)
            data = response.json()
            return [str(entry["id"]) for entry in data["data"]]
        except openai.APIStatusError as error:
            status, body = error.status_code, ErrorBody(error.response.text, secrets=self._secrets)
        except TimeoutError:
            raise LLMUnavailableError(f"no answer from {self.config.base_url} in {self.config.timeout_s:g} s") from None
        except _TRANSPORT_ERRORS as error:
            raise LLMUnavailableError(
                f"cannot reach {self.config.base_url}: {self._transport_reason(error)}", hint=_REACH_HINT
            ) from None
        except (UnusableReplyError, ValueError, KeyError, TypeError):
            return None
        if status in (401, 403):
            raise self._refused(status, body)
        return None

    async def _attempt(self, call: _Call) -> Completion:
        """One request and its reading; errors are raised outside the except blocks, so that no key hangs on to them."""
        call.sent = self._request(call)
        content = json.dumps(call.sent).encode()
        failure: Exception
        async with self.gate.request(len(content)) as request:
            call.gate_s += request.waited_s
            call.is_probing = request.is_probe
            call.num_attempts += 1
            call.paid = Usage()
            try:
                async with asyncio.timeout(min(self.config.timeout_s, call.left_s)):
                    answer = await self._exchange(content)
                self._heed(answer.headers)
                if 300 <= answer.status < 400:
                    raise self._redirected(answer)
                if answer.status < 300:
                    completion = self._read(answer, call)
                    request.succeeded(completion.usage)
                    return replace(completion, usage=completion.usage + call.lost)
                body = ErrorBody(answer.content.decode(errors="replace"), secrets=self._secrets)
                failure = self._failure(answer.status, body, call, read_retry_after(answer.headers))
            except _TRANSPORT_ERRORS as error:
                kind = "timeout" if _is_timeout(error) else "connection"
                failure = self._failed(self._transport_reason(error, call), call, kind)
            except (UnusableReplyError, ValueError, RecursionError) as error:
                call.num_malformed += 1
                reason = str(error) if isinstance(error, UnusableReplyError) else "the reply is no valid JSON"
                failure = self._failed(mask(reason, self._secrets), call, MALFORMED)
            except (AttemptFailedError, ParameterRefusedError, LLMError) as error:  # an error inside an answer with status 200
                failure = error
            request.failed(*_end_of(failure), call.paid)
            call.lost += call.paid
        raise failure

    async def _exchange(self, content: bytes) -> Answer:
        """The answer to one chat request.

        The OpenAI client builds the first one: its address, key and headers are those of all that follow, which differ in
        their body alone and pass it by, for it takes more time than everything else in a call (decision 14). Through a
        proxy all go its way.
        """
        if isinstance(self._http, Connections) and self._http.prepared is not None:
            return await self._http.exchange(self._http.prepared, content)
        try:
            response = await self._client.post(CHAT_PATH, content=content, cast_to=httpx2.Response, options=_JSON_OPTIONS)
        except openai.APIStatusError as error:
            response = error.response
        return Answer(response.status_code, response.headers, response.content)

    def _heed(self, headers: Mapping[str, str]) -> None:
        """Holds everyone where the endpoint says that nothing remains."""
        exhausted_s = read_exhausted_s(headers)
        if exhausted_s > 0:
            self.counts["rate_limit_hold"] += 1
            self.gate.hold(exhausted_s)

    def _request(self, call: _Call) -> dict[str, Any]:
        """The request's body, without what this endpoint refused before."""
        config = self.config
        messages = in_forms(call.messages, self.message_forms) if self.message_forms else list(call.messages)
        body: dict[str, Any] = {"model": config.model, "messages": messages, **self._extra}
        if call.tools:
            body["tools"] = list(call.tools)
            if config.parallel_tool_calls is not None:
                body["parallel_tool_calls"] = config.parallel_tool_calls
        if call.response_format is not None:
            form = simpler_format(call.response_format, self.format_level)
            if form is not None:
                body["response_format"] = form
        if call.stop:
            body["stop"] = list(call.stop)
        if config.temperature is not None:
            body["temperature"] = config.temperature
        if config.seed is not None:
            body["seed"] = config.seed
        if config.max_output_tokens is not None:
            body[self._token_limit] = config.max_output_tokens * call.output_tokens_factor
        for name in self.refused_parameters:
            body.pop(name, None)
        return body

    def _read(self, answer: Answer, call: _Call) -> Completion:
        try:
            data = json.loads(answer.content)
        except (ValueError, RecursionError):
            raise self._no_json(answer) from None
        call.paid = read_usage(data)
        error = error_in(data)
        if error is not None:
            raise self._error_with_status_200(error, call)
        try:
            completion = read_completion(data, num_attempts=call.num_attempts, usage=call.paid)
        except UnusableReplyError as unusable:
            reason = finish_reason_in(data)
            if reason.startswith("content_filter"):
                raise MessagesRefusedError("the endpoint's content filter kept the reply back", value=reason) from None
            raise UnusableReplyError(f"{unusable}; {self._words(answer)}") from None
        completion = without_secrets(completion, self._kept_secrets)
        cut = cut_at(completion.text, call.stop)
        if len(cut) < len(completion.text):
            self.counts["cut_by_client"] += 1
            completion = replace(completion, text=cut, finish_reason="stop")
        if not completion.text and not completion.tool_calls:
            if completion.finish_reason == "content_filter":
                raise MessagesRefusedError("the endpoint's content filter kept the reply back", value=self.config.model)
            if completion.finish_reason == "length":
                self._raise_output_limit(call)
        self._watch(data, completion.usage, call)
        return completion

    def _raise_output_limit(self, call: _Call) -> None:
        """Asks once more with a higher limit where all output tokens went into thinking.

        Raises:
            ParameterRefusedError: the request goes out again.
        """
        if call.output_tokens_factor == 1 and self.config.max_output_tokens is not None:
            call.output_tokens_factor = RAISED_OUTPUT_TOKENS
            self.counts["output_limit_raised"] += 1
            raise ParameterRefusedError(self._token_limit)

    def _watch(self, data: dict[str, Any], usage: Usage, call: _Call) -> None:
        """Counts what says that the figures are not what they seem: no usage, a cut prompt, another model."""
        if usage.prompt_tokens == 0:
            self.counts["usage_missing"] += 1
        elif call.caller is not None and call.caller.is_prompt_cut(call.messages, usage.prompt_tokens):
            self.counts["prompt_not_growing"] += 1
        self.counts[self._answered_by(data.get("model"), data.get("system_fingerprint"))] += 1

    def _answered_by(self, name: Any, fingerprint: Any) -> str:
        """The kind of event that tells which model, and which version of it, an answer names."""
        said = (name if isinstance(name, str) else "", fingerprint if isinstance(fingerprint, str) else "")
        kind = self._reply_models.get(said)
        if kind is None:
            shown = clean(
                " ".join(part for part in (said[0], f"({said[1]})" if said[1] else "") if part) or "not told", limit=100
            )
            kind = REPLY_MODEL + mask(shown, self._secrets)
            if len(self._reply_models) >= MAX_REPLY_MODELS:
                return f"{REPLY_MODEL}others"
            self._reply_models[said] = kind
        return kind

    def _no_json(self, answer: Answer) -> Exception:
        """An answer with status 200 that is no JSON: a stream is one for good, a page may be a gateway's hiccup."""
        if b"data:" in answer.content[:2000] and not answer.content.lstrip().startswith((b"{", b"<")):
            return LLMRefusedError(
                f"{self.config.base_url} answers with a stream of events, which was not asked for",
                hint="switch streaming off at the server or gateway",
            )
        if not answer.content.strip():
            return UnusableReplyError(f"the answer is empty (HTTP {answer.status})")
        return UnusableReplyError(f"the reply is no valid JSON; {self._words(answer)}")

    def _words(self, answer: Answer) -> str:
        """Status, content type and the beginning of an answer."""
        kind = answer.headers.get("content-type", "no content type").partition(";")[0]
        body = ErrorBody(answer.content[:20_000].decode(errors="replace"), secrets=self._secrets)
        return f"HTTP {answer.status}, {kind}: {clean(body.message, limit=200)}"

    def _redirected(self, answer: Answer) -> LLMRefusedError:
        """A redirect that was not followed: POST would become GET, or it leads nowhere."""
        where = mask(clean(answer.headers.get("location", ""), limit=200), self._secrets)
        return LLMRefusedError(
            f"{self.config.base_url} refused the request with HTTP {answer.status}: it redirects to {where or 'nowhere'}",
            hint="it is not followed, because it would turn the request into another or never ends; give the address that it "
            "leads to as --llm-url",
        )

    def _error_with_status_200(self, error: dict[str, Any], call: _Call) -> Exception:
        """Some proxies answer 200 and put the error, with the status as its code, into the body."""
        code = error.get("code", error.get("status"))
        body = ErrorBody(json.dumps({"error": error}), secrets=self._secrets)
        status = 401 if body.is_about_the_key else 500
        if isinstance(code, (int, str)) and re.fullmatch(r"[45]\d\d", str(code)):
            status = int(code)
        return self._failure(status, body, call, None)

    def _failure(self, status: int, body: ErrorBody, call: _Call, retry_after_s: float | None) -> Exception:
        """What an error answer means for the call."""
        if status in (400, 413, 422) and body.is_context_too_long:
            return ContextTooLongError(
                f"the messages do not fit the model: {body.message}", http_status=status, value=self.config.model
            )
        if status in STATUSES and "response_format" in call.sent and is_about_format(body):
            level = format_level_of(call.sent["response_format"])
            if level >= self.format_level:
                self.format_level = level + 1
                self.counts["response_format_simplified"] += 1
            return ParameterRefusedError("response_format")
        if status in STATUSES and (form := self._taught_form(body, call)):
            return ParameterRefusedError(form)
        if retry_after_s is not None and retry_after_s > max(self.config.total_timeout_s, MIN_LONG_WAIT_S):
            return LLMRefusedError(
                f"{self.config.base_url} refused the request with HTTP {status}: {body.message or 'no reason given'}",
                http_status=status,
                hint=f"it asks to wait {retry_after_s:,.0f} s; go on later with --resume",
            )
        if is_retryable_status(status) and not body.is_quota:
            if retry_after_s is not None and self.gate.is_refused:
                self.gate.hold(retry_after_s)
            reason = f"HTTP {status}: {body.message}" if body.message else f"HTTP {status}"
            return self._failed(reason, call, str(status), status, retry_after_s)
        if status in (400, 422):
            parameter = body.refused_parameter(call.sent)
            if parameter is not None:
                self._adapt(parameter)
                return ParameterRefusedError(parameter)
        return self._refused(status, body)

    def _taught_form(self, body: ErrorBody, call: _Call) -> str | None:
        """The form of the conversation that a refusal asks for; also one that another call has learned while this was asked."""
        form = taught_form(body.message, call.sent["messages"], known=self.message_forms)
        if form is not None:
            self.message_forms.add(form)
            self.counts[f"message_form:{form}"] += 1
            return form
        form = taught_form(body.message, call.messages, known=call.forms_tried) if self.message_forms else None
        if form not in self.message_forms:
            return None
        call.forms_tried.add(str(form))
        return form

    def _adapt(self, parameter: str) -> None:
        """Remembers a refused parameter; a token limit is first tried under its other name."""
        if parameter in self.refused_parameters:
            return
        self.refused_parameters.add(parameter)
        self.counts[f"parameter_refused:{parameter}"] += 1
        if parameter in TOKEN_LIMITS:
            self._token_limit = TOKEN_LIMITS[1 - TOKEN_LIMITS.index(parameter)]

    def _failed(
        self, reason: str, call: _Call, kind: str, status: int | None = None, retry_after_s: float | None = None
    ) -> AttemptFailedError:
        """A failed attempt; one that meets an endpoint that is down for everyone is not held against the call.

        An error in answer to the request that tries such an endpoint again is: it may be this very call that always fails,
        and nobody else left to show that the endpoint is well.
        """
        is_answered = status is not None and status not in REFUSING_STATUS
        call.num_failures += not self.gate.is_down or (call.is_probing and is_answered)
        call.last_reason = reason
        if not (kind == "timeout" and call.left_s <= 0):
            call.last_status = status
        if call.num_attempts > 1:
            self.counts["retry"] += 1
        is_final = call.num_malformed >= self.config.malformed_cap
        if call.caller is not None:
            call.caller.num_failed_requests += 1
            is_final = is_final or call.caller.exhausted is not None
        return AttemptFailedError(
            reason,
            number=call.num_failures,
            kind=kind,
            status=status,
            retry_after_s=retry_after_s,
            left_s=call.left_s,
            is_final=is_final,
        )

    def _refused(self, status: int, body: ErrorBody) -> LLMRefusedError:
        """The final answer as an error, with what to do about it."""
        reason = body.message or "no reason given"
        where = f"{self.config.base_url} refused the request with HTTP {status}: {reason}"
        hint = None
        if status in (401, 403):
            name = self.config.api_key_env
            hint = f"{'check' if self.config.has_key else 'set'} the key in the environment variable {name}" if name else None
        elif status == 404 and "model" not in reason.lower():
            hint = "check the address; it usually ends in /v1"
        elif status == 404:
            hint = "check --llm-model"
        elif status == 402 or body.is_quota:
            hint = "the account has no credit left"
        elif body.is_content_filter:
            hint = "the endpoint's content filter refused the messages"
            return MessagesRefusedError(where, http_status=status, hint=hint)
        elif "tool" in reason.lower():
            hint = "where the endpoint has no native tool calls, use --protocol text"
        return LLMRefusedError(where, http_status=status, hint=hint)

    def _given_up(self, failure: AttemptFailedError, call: _Call) -> LLMError:
        is_time_over = failure.status is None and failure.kind == "timeout" and call.left_s <= 0
        status = call.last_status if is_time_over else failure.status  # the text says too what came before
        hint = _REACH_HINT if status is None else None
        if status == 429:
            hint = "lower --concurrency or wait"
        used_up = None if call.caller is None else call.caller.exhausted
        return LLMUnavailableError(
            f"no reply from {self.config.base_url} after {call.num_attempts} attempts in {call.spent_s:.1f} s: {failure.reason}"
            + (f"; {used_up}" if used_up else ""),
            http_status=status,
            hint=hint,
        )

    def _transport_reason(self, error: BaseException, call: _Call | None = None) -> str:
        """Why there was no answer, from the innermost error that says it."""
        for cause in _chain(error):
            if isinstance(cause, ConnectionRefusedError):
                return "connection refused; is the endpoint running?"
            if isinstance(cause, (socket.gaierror, aiohttp.ClientConnectorDNSError)):
                return "the host name cannot be resolved"
            if isinstance(cause, (ssl.SSLError, aiohttp.ClientSSLError)):
                return "the TLS connection failed; is it http instead of https, or a certificate of your own?"
            if isinstance(cause, aiohttp.ServerDisconnectedError):
                return "the endpoint closed the connection without an answer"
            if isinstance(cause, ConnectionResetError):
                return "the connection was reset"
            if isinstance(cause, aiohttp.ClientPayloadError):
                return "the reply broke off"
        if _is_timeout(error):
            if call is None or call.left_s > 0:
                return f"no answer within {self.config.timeout_s:g} s"
            before = f"; before that: {call.last_reason}" if call.last_reason else ""
            return f"the total time of {call.total_timeout_s:g} s is over{before}"
        last = list(_chain(error))[-1]
        return mask(f"{type(last).__name__}: {last}", self._secrets)


_REACH_HINT = "try it with `toolrec llm check`"
_JSON_OPTIONS: Any = {**_ONLY_BEARER, "headers": {"Content-Type": "application/json"}}


def _end_of(failure: Exception) -> tuple[str, Health]:
    """How a failed request is counted, and what it says of the endpoint."""
    if isinstance(failure, AttemptFailedError):
        if failure.status in REFUSING_STATUS or failure.kind == "timeout":
            return failure.kind, "refused"
        return failure.kind, "down" if (failure.status or 500) >= 500 and failure.kind != MALFORMED else "other"
    if isinstance(failure, ParameterRefusedError):
        return "parameter_refused", "other"
    return ("context_too_long" if isinstance(failure, ContextTooLongError) else "refused"), "other"


def _is_timeout(error: BaseException) -> bool:
    """Whether the time was up; the OpenAI client calls a connection that was reset a timeout too."""
    causes = list(_chain(error))
    return any(isinstance(cause, TimeoutError) for cause in causes) or isinstance(causes[-1], httpx2.TimeoutException)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first; of several connection tries the last."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        inner = getattr(current, "os_error", None)
        current = inner if isinstance(inner, BaseException) else current.__cause__ or current.__context__
