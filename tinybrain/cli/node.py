"""The chain, for commands that ask it a few things and end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tinybrain.config import Settings
from tinybrain.payments.chain import Chain
from tinybrain.payments.rpc import Rpc


@asynccontextmanager
async def open_chain(settings: Settings) -> AsyncIterator[Chain]:
    """The settings' token on their network."""
    rpc = Rpc(settings.rpc)
    try:
        yield Chain(rpc, settings.token.address)
    finally:
        await rpc.aclose()
