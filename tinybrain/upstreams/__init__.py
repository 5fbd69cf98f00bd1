"""Models behind other people's URLs: larger ones that are bought, or a small one."""

from tinybrain.upstreams.factory import build_upstream
from tinybrain.upstreams.openai_compatible import OpenAICompatible
from tinybrain.upstreams.remote_small_model import RemoteSmallModel

__all__ = ["OpenAICompatible", "RemoteSmallModel", "build_upstream"]
