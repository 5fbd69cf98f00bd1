"""What the devnet's HTTP servers share: bounded bodies, errors as JSON, a health route."""

from collections.abc import Mapping
from typing import Any, TypeVar

import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tinybrain.errors import InvalidRequest, RequestTooLarge, TinyBrainError
from tinybrain.faults import first_fault

Body = TypeVar("Body", bound=BaseModel)

SHUTDOWN_GRACE_S = 5


async def read_body(request: Request, model: type[Body], limit: int) -> Body:
    """Read a JSON body of at most `limit` bytes.

    Raises:
        RequestTooLarge: It is longer.
        InvalidRequest: It is no such object.
    """
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise RequestTooLarge(f"The body is longer than {limit} bytes.")
    try:
        return model.model_validate_json(bytes(content))
    except ValidationError as error:
        where, what = first_fault(error)
        raise InvalidRequest(f"{where}: {what}", param=where or None) from None


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _explain(_: Request, error: Exception) -> Response:
    if not isinstance(error, TinyBrainError):
        raise error
    return JSONResponse(error.body(), error.status)


HEALTH = Route("/health", _health)
EXPLAIN_ERRORS: Mapping[Any, Any] = {TinyBrainError: _explain}


def serve(app: Starlette, *, port: int) -> None:
    """Serve at 127.0.0.1 until SIGTERM; requests under way get a few seconds to end."""
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
    )
