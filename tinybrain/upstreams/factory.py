"""Makes the models behind other people's URLs that the settings ask for."""

from urllib.parse import urlsplit

import httpx

from tinybrain.config import Settings
from tinybrain.errors import ConfigError
from tinybrain.upstreams.blockrun import blockrun
from tinybrain.upstreams.openai_compatible import OpenAICompatible
from tinybrain.upstreams.remote_small_model import RemoteSmallModel, identity


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


def build_small_model(settings: Settings, client: httpx.AsyncClient) -> RemoteSmallModel:
    """The small model behind an API.

    Raises:
        ConfigError: None is set.
    """
    url, name = _small_model(settings)
    return RemoteSmallModel(
        client,
        base_url=url,
        model=name,
        api_key=settings.small_model_api_key,
        timeout_s=settings.answer_timeout_s,
    )


def small_model_identity(settings: Settings) -> str:
    """What a router of it is bound to.

    Raises:
        ConfigError: None is set.
    """
    url, name = _small_model(settings)
    return identity(name, url)


def _small_model(settings: Settings) -> tuple[str, str]:
    if settings.small_model_url is None or settings.small_model_name is None:
        raise ConfigError(
            "TINYBRAIN_SMALL_MODEL_URL or TINYBRAIN_SMALL_MODEL_NAME is missing. Set both to use "
            "a small model behind an API."
        )
    return settings.small_model_url, settings.small_model_name
