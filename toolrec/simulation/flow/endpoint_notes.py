"""What an endpoint does that changes what a figure means: said once while the run goes on, and noted beside the figures."""

from __future__ import annotations

from collections.abc import Mapping

from toolrec.llm.client import REPLY_MODEL

_NOTES = {
    "prompt_not_growing": (
        "the endpoint leaves out what does not fit its context ({count:,} replies with no more prompt tokens than for a shorter "
        "conversation): raise its context (Ollama: num_ctx) before you trust a figure"
    ),
    "response_format_simplified": "the endpoint refuses the whole JSON schema; a simpler one is sent",
    "output_limit_raised": (
        "{count:,} replies used up --llm-max-output-tokens before an answer; they were asked for once more with a higher limit"
    ),
    "message_form:no_system": "the endpoint takes no system message; it stands above the first user message",
    "message_form:turns": "the endpoint takes user and assistant in turn alone; calls and observations are sent as text",
    "message_form:unknown_fields": "the endpoint refuses its own reasoning fields; they are not sent back",
}


def endpoint_notes(counts: Mapping[str, int]) -> dict[str, str]:
    """A sentence for each kind of event that a reader of the figures must know, by kind."""
    notes = {kind: text.format(count=counts[kind]) for kind, text in _NOTES.items() if counts.get(kind)}
    models = {kind.removeprefix(REPLY_MODEL): count for kind, count in counts.items() if kind.startswith(REPLY_MODEL)}
    if len(models) > 1:
        named = ", ".join(f"{name} {count:,}" for name, count in sorted(models.items(), key=lambda entry: -entry[1]))
        notes[REPLY_MODEL] = f"the replies come from more than one model or version of it: {named}"
    return notes
