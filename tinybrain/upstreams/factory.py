"""Chooses the upstream that the settings ask for."""

from urllib.parse import urlsplit

import httpx

from tinybrain.config import Settings
from tinybrain.upstreams.blockrun import blockrun
from tinybrain.upstreams.openai_compatible import OpenAICompatible


def build_upstream(settings: Settings, client: httpx.AsyncClient) -> OpenAICompatible:
    """BlockRun, paid by `client`; with an API key, whoever serves the URL, named by its host."""
    if settings.upstream_api_key is None:
        return blockrun(
            client,
            base_url=settings.upstream_url,
            model=settings.upstream_model,
            max_tokens=settings.upstream_max_tokens,
        )
    return OpenAICompatible(
        client,
        base_url=settings.upstream_url,
        model=settings.upstream_model,
        name=urlsplit(settings.upstream_url).hostname or "upstream",
        max_tokens=settings.upstream_max_tokens,
        api_key=settings.upstream_api_key,
    )
