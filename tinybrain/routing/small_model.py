"""Opens the small model that the settings ask for: TinyChat, or one behind an API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tinybrain.chat import LocalModel
from tinybrain.config import Settings
from tinybrain.upstreams.factory import build_small_model


@asynccontextmanager
async def open_small_model(
    settings: Settings, *, slots: int | None = None
) -> AsyncIterator[LocalModel]:
    """The small model, ready to be asked; `identity_of` tells what a router of it is bound to.

    `slots` are TinyChat's, where not as many as set are wanted.

    Raises:
        ConfigError: TinyChat's checkpoint cannot be found or used.
    """
    if settings.small_model_url is not None:
        async with httpx.AsyncClient() as client:
            yield build_small_model(settings, client)
        return
    from tinybrain.engine.loading import load_tinychat  # noqa: PLC0415  # torch takes seconds

    model = load_tinychat(settings, slots=slots)
    try:
        yield model
    finally:
        model.close()
