"""A chat-completions endpoint with a fixed latency, for `simulation.py`: three tool calls of 20 items, then a final list.

    python benchmarks/fixed_endpoint.py --port 9913 --latency-s 5 --attributes none,genre,release_year

It answers in the shape of a real one and decides nothing: which call comes next is the number of observations in the
messages, and the final list is the first ten ids of the last observation. What it answered is counted: `GET /counts`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import Counter
from typing import Any

import uvicorn

USAGE = {"prompt_tokens": 1500, "completion_tokens": 30, "total_tokens": 1530}
_ID = re.compile(r"<([^<>\s]+)>")


def build_app(latency_s: float, attributes: list[str]) -> Any:
    """The ASGI application."""
    counts: Counter[str] = Counter()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] == "GET":
            await _send(send, dict(counts))
            return
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        request = json.loads(body)
        observations = [message["content"] for message in request["messages"] if message["role"] == "tool"]
        counts[f"after_{len(observations)}_observations"] += 1
        if latency_s:
            await asyncio.sleep(latency_s)
        await _send(send, _completion(request["model"], observations, attributes))

    return app


def _completion(model: str, observations: list[str], attributes: list[str]) -> dict[str, Any]:
    if len(observations) < len(attributes):
        name, arguments = "retrieve", {"attribute": attributes[len(observations)], "k": 20}
    else:
        name, arguments = "finish", {"items": list(dict.fromkeys(_ID.findall(observations[-1])))[:10]}
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": f"c{len(observations)}", "type": "function", "function": function}
    message = {"role": "assistant", "content": "look", "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": model, "choices": [choice], "usage": USAGE}


async def _send(send: Any, reply: dict[str, Any]) -> None:
    content = json.dumps(reply).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--attributes", default="none,genre,release_year")
    options = parser.parse_args()
    app = build_app(options.latency_s, options.attributes.split(","))
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="error", backlog=16_384, timeout_keep_alive=75)


if __name__ == "__main__":
    main()
