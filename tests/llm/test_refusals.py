"""Error answers as endpoints send them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolrec.llm.refusals import ADAPTABLE, ErrorBody, mask
from toolrec.llm.replies import UnusableReplyError, read_completion

SENT = ("model", "messages", *ADAPTABLE)


def body(message: str, **fields: Any) -> str:
    return json.dumps({"error": {"message": message, **fields}})


@pytest.mark.parametrize(
    ("raw", "parameter"),
    [
        (body("Unsupported parameter: 'max_tokens' … Use 'max_completion_tokens' instead.", param="max_tokens"), "max_tokens"),
        (body("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."), "max_tokens"),
        (body("Unknown parameter: `parallel_tool_calls`"), "parallel_tool_calls"),
        (body("unknown field: seed"), "seed"),
        (body("nothing to say", param="body.stop"), "stop"),
        (body("'stop' is not supported with this model, and neither is 'temperature'"), "stop"),
        (json.dumps({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}), "seed"),
        (json.dumps({"object": "error", "message": "temperature is not supported"}), "temperature"),
        (json.dumps({"error": "parameter seed is unknown"}), "seed"),
        ("temperature is not allowed here", "temperature"),
        (body("please stop sending so much; this is not allowed"), None),
        (body("Invalid value for 'messages'", param="messages"), None),
        (body("the temperature today is fine"), None),
        (body("messages[3].content: invalid type"), None),
        ("", None),
        ("null", None),
        ("[]", None),
    ],
)
def test_refused_parameter(raw: str, parameter: str | None) -> None:
    assert ErrorBody(raw).refused_parameter(SENT) == parameter


def test_only_what_was_sent_can_be_left_out() -> None:
    assert ErrorBody(body("'seed' is not supported")).refused_parameter(("model", "stop")) is None


def test_html_page_becomes_a_line() -> None:
    page = ErrorBody("<html><head><title>502 Bad Gateway</title></head><body>\n<h1>nginx</h1></body></html>")
    assert page.message == "502 Bad Gateway nginx"


@given(st.text(max_size=300))
def test_any_error_answer_is_read(raw: str) -> None:
    found = ErrorBody(raw, secrets=["marker"])
    assert "marker" not in found.message
    assert found.refused_parameter(SENT) in (None, *ADAPTABLE)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["error", "message", "code", "param", "detail", "msg", "loc", "choices", "content", "tool_calls", "usage",
                         "function", "arguments", "finish_reason", "prompt_tokens", "prompt_tokens_details"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
def test_any_json_error_is_read(data: Any) -> None:
    ErrorBody(json.dumps(data)).refused_parameter(SENT)


@given(json_values)
def test_any_json_reply_is_read_or_unusable(message: Any) -> None:
    for data in (message, {"choices": message}, {"choices": [{"message": message}], "usage": message}):
        try:
            completion = read_completion(data, num_attempts=1)
        except UnusableReplyError:
            continue
        assert isinstance(completion.text, str)
        assert completion.usage.prompt_tokens >= 0


def test_masks_known_keys_and_what_looks_like_one() -> None:
    masked = mask("key abcd1234, Bearer xyz.abcdef, sk-abcdefghijk, skate", ["abcd1234"])
    assert masked == "key ***, Bearer ***, ***, skate"
