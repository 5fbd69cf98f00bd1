"""TinyChat, the small model: messages in, text and the model's own doubt out, token by token.

Ties the engine, which knows only token ids, to the tokenizer, and the engine's thread to the
event loops that ask.
"""

import asyncio
import queue
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import torch

from tinybrain.chat import Finished, LocalEvent, Message, Prefilled, Sampling, Token
from tinybrain.engine.checkpoint import load_model
from tinybrain.engine.checkpoint_files import find_checkpoint
from tinybrain.engine.detokenizer import Detokenizer
from tinybrain.engine.engine import Engine
from tinybrain.engine.gpt import GPT
from tinybrain.engine.rendering import fit, render
from tinybrain.engine.request import (
    Completed,
    EngineEvent,
    Failed,
    PromptRead,
    Request,
    SampledToken,
)
from tinybrain.engine.tokenizer import Tokenizer
from tinybrain.engine.tokenizer_file import read_tokenizer
from tinybrain.errors import ConfigError, LocalModelError


class TinyChat:
    """A `LocalModel` over one engine."""

    name = "tinychat"

    def __init__(
        self, model: GPT, tokenizer: Tokenizer, *, checkpoint_hash: str, slots: int
    ) -> None:
        self.context_length = model.config.sequence_len
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.variant = model.variant.name
        self.checkpoint_hash = checkpoint_hash
        self.device = model.lm_head.weight.device.type
        self.engine = Engine(model, slots=slots)
        self._tokenizer = tokenizer
        self._stop_tokens = frozenset(tokenizer.special(name) for name in ("assistant_end", "bos"))

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[LocalEvent, None]:
        """Yield one Prefilled, a Token for each sampled token, and one Finished.

        The stop token is a Token too, without text: its certainty counts. A conversation too
        long for the context loses its oldest turns; an answer ends with "length" where the
        context does.

        Raises:
            InvalidRequest: The conversation cannot be rendered.
            Busy: Too many requests wait.
            LocalModelError: The model failed.
        """
        prompt = self._prompt(messages, sampling.max_tokens)
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[EngineEvent] = asyncio.Queue()
        request = Request(
            prompt,
            emit=lambda event: loop.call_soon_threadsafe(events.put_nowait, event),
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            seed=sampling.seed,
            stop_tokens=self._stop_tokens,
        )
        text = Detokenizer(sampling.stop)
        produced = 0
        self.engine.submit(request)
        try:
            while True:
                match await events.get():
                    case PromptRead(perplexity):
                        yield Prefilled(perplexity, len(prompt))
                    case SampledToken(token, logprob, entropy, margin):
                        produced += 1
                        piece = text.push(self._tokenizer.token_bytes(token))
                        yield Token(piece, logprob, entropy, margin)
                        if text.stopped:
                            yield Finished("stop", len(prompt), produced)
                            return
                    case Completed(reason):
                        yield Finished(reason, len(prompt), produced, text.finish())
                        return
                    case Failed(error):
                        raise LocalModelError("TinyChat failed while answering.") from error
        finally:
            self.engine.abort(request)

    def warm_up(self) -> None:
        """Compute one token, so that the first caller waits for no page fault or kernel load.

        Raises:
            LocalModelError: The model failed.
        """
        events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
        self.engine.submit(Request([self._tokenizer.special("bos")], events.put, max_tokens=1))
        while not isinstance(event := events.get(), Completed):
            if isinstance(event, Failed):
                raise LocalModelError("TinyChat failed while warming up.") from event.error

    def close(self) -> None:
        """End the engine; what is unfinished fails."""
        self.engine.close()

    def _prompt(self, messages: Sequence[Message], max_tokens: int) -> list[int]:
        # However long an answer is asked for, half of the context is the conversation's.
        answer = min(max_tokens, self.context_length // 2)
        ids = render(self._tokenizer, messages)
        return fit(self._tokenizer, ids, self.context_length - answer)


def load_tinychat(
    *,
    checkpoint: Path | None,
    nanochat_base_dir: Path | None,
    source: str,
    step: int | None,
    device: str,
    slots: int,
    variant: str | None = None,
) -> TinyChat:
    """Load a checkpoint and start its engine; without a directory, the model that ships.

    `variant` names nanochat's architecture where the file does not tell it.
    `device` is "auto" (the best there is), "cuda", "mps" or "cpu". The number of threads torch
    uses on a CPU is left to the caller.

    Raises:
        ConfigError: The checkpoint cannot be found or used, or there is no such device.
    """
    files = find_checkpoint(
        checkpoint=checkpoint, nanochat_base_dir=nanochat_base_dir, source=source, step=step
    )
    tokenizer = Tokenizer(read_tokenizer(files.tokenizer))
    model = load_model(files, choose_device(device), variant_name=variant)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise ConfigError(
            f"{files.tokenizer} has {tokenizer.vocab_size} tokens, but the model of "
            f"{files.weights} has {model.config.vocab_size}: they do not belong together."
        )
    return TinyChat(model, tokenizer, checkpoint_hash=files.digest(), slots=slots)


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA, else MPS, else the CPU.

    Raises:
        ConfigError: This machine has no such device.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in present.items() if there)
    if not present.get(name):
        raise ConfigError(f"TINYBRAIN_DEVICE is {name!r}, which this machine does not have.")
    return torch.device(name)
