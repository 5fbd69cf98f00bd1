"""Tests find the provider beside them, and share one."""

import sys
from pathlib import Path

import httpx
import pytest

sys.path.append(str(Path(__file__).parent))

from providers import serving


@pytest.fixture(scope="session")
def server():
    with serving() as provider:
        yield provider


@pytest.fixture
def provider(server):
    server.requests.clear()
    return server


@pytest.fixture
async def client():
    async with httpx.AsyncClient() as client:
        yield client
