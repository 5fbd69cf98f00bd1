"""BlockRun: larger models, paid by the call over x402.

It sells `deepseek/deepseek-reasoner` for about $0.001 a question. The client passed in must pay;
what BlockRun answers to one that does not is an UpstreamError with status 402.
"""

import httpx

from tinybrain.upstreams.openai_compatible import OpenAICompatible

SYSTEM_MESSAGE = (
    "You are a helpful AI assistant. Keep your final answer concise and under 2000 characters."
)


def blockrun(
    client: httpx.AsyncClient,
    *,
    base_url: str = "https://blockrun.ai/api/v1",
    model: str = "deepseek/deepseek-reasoner",
    max_tokens: int = 1024,
) -> OpenAICompatible:
    """An upstream configured for BlockRun; its prices depend on `max_tokens`."""
    return OpenAICompatible(
        client,
        base_url=base_url,
        model=model,
        name="blockrun",
        max_tokens=max_tokens,
        system_message=SYSTEM_MESSAGE,
        reports_usage=False,
    )
