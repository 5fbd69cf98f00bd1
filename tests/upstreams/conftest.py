"""A real HTTP server that answers as a test tells it to, and misbehaves on demand."""

import threading
import time

import pytest
import uvicorn
from starlette.applications import Starlette
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


@pytest.fixture(scope="session")
def server():
    provider = Provider()
    routes = [Route("/v1/chat/completions", provider.__call__, methods=["POST"])]
    config = uvicorn.Config(
        Starlette(routes=routes), host="127.0.0.1", port=0, log_level="critical", ws="none"
    )
    uvicorn_server = uvicorn.Server(config)
    thread = threading.Thread(target=uvicorn_server.run, daemon=True)
    thread.start()
    while not uvicorn_server.started:
        time.sleep(0.01)
    port = uvicorn_server.servers[0].sockets[0].getsockname()[1]
    provider.url = f"http://127.0.0.1:{port}/v1"
    yield provider
    uvicorn_server.should_exit = True
    thread.join()


@pytest.fixture
def provider(server):
    server.requests.clear()
    return server
