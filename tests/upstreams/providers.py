"""A real HTTP server that answers as a test tells it to, and misbehaves on demand."""

import asyncio
import threading
import time
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route


class Provider:
    """`reply` answers the next requests; `requests` are the bodies and headers that came."""

    def __init__(self):
        self.reply = None
        self.requests = []
        self.url = ""

    async def __call__(self, request):
        self.requests.append((await request.json(), dict(request.headers), request.client.port))
        return await self.reply(request)


@contextmanager
def serving():
    """A provider that listens."""
    provider = Provider()
    routes = [Route("/v1/chat/completions", provider.__call__, methods=["POST"])]
    config = uvicorn.Config(
        Starlette(routes=routes), host="127.0.0.1", port=0, log_level="critical", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    provider.url = f"http://127.0.0.1:{port}/v1"
    yield provider
    server.should_exit = True
    thread.join()


def streaming(chunks, media_type="text/event-stream"):
    async def reply(request):
        async def body():
            for chunk in chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                if isinstance(chunk, float):
                    await asyncio.sleep(chunk)
                else:
                    yield chunk

        return StreamingResponse(body(), media_type=media_type)

    return reply


def answering(response):
    async def reply(request):
        return response

    return reply
