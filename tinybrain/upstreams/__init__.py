"""Larger models that answers are bought from."""

from tinybrain.upstreams.factory import build_upstream
from tinybrain.upstreams.openai_compatible import OpenAICompatible

__all__ = ["OpenAICompatible", "build_upstream"]
