"""A larger model that costs no time: OpenAI's chat completions with one fixed answer.

`python benchmarks/mock_model.py PORT`. It takes the model's place in a benchmark of the gateway,
because what is measured there is everything but the model.
"""

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tinybrain.devnet.http_server import HEALTH, serve

MODEL = "mock"
TOKENS = tuple(f"word{number} " for number in range(20))
ANSWER = "".join(TOKENS)
HEAD = {"id": "chatcmpl-mock", "created": 0, "model": MODEL}
USAGE = {"prompt_tokens": 1, "completion_tokens": len(TOKENS), "total_tokens": len(TOKENS) + 1}


async def complete(request: Request) -> Response:
    body = await request.json()
    if body.get("stream"):
        return StreamingResponse(_events(), media_type="text/event-stream")
    message = {"role": "assistant", "content": ANSWER}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return JSONResponse({**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE})


async def _events() -> AsyncIterator[bytes]:
    for token in TOKENS:
        yield _event([{"index": 0, "delta": {"content": token}, "finish_reason": None}])
    yield _event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    yield _event([], usage=USAGE)
    yield b"data: [DONE]\n\n"


def _event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    chunk = {**HEAD, "object": "chat.completion.chunk", "choices": choices, **more}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


if __name__ == "__main__":
    serve(
        Starlette(
            routes=[HEALTH, Route("/v1/chat/completions", complete, methods=["POST"])],
        ),
        port=int(sys.argv[1]),
    )
