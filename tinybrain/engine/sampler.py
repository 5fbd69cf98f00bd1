"""Choosing one request's next token, and telling how certain the model was of it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A chosen token, with figures of the model's raw distribution (temperature 1).

    `logprob` is the natural log of the chosen token's probability, `entropy` is in nats, `margin`
    is the probability of the likeliest token minus that of the second.
    """

    id: int
    logprob: float
    entropy: float
    margin: float


class Sampler:
    """Draws tokens for one request; its own generator keeps it independent of the batch."""

    def __init__(
        self, *, temperature: float, top_k: int, seed: int | None, device: torch.device
    ) -> None:
        self._temperature = temperature
        self._top_k = top_k
        self._generator = torch.Generator(device)
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed % 2**63)

    def sample(self, logits: Tensor) -> SampledToken:
        """Choose from float logits [V].

        Raises:
            FloatingPointError: The logits are not finite.
        """
        logprobs = logits.log_softmax(-1)
        probabilities = logprobs.exp()
        best, second = probabilities.topk(2).values
        token = self._choose(logits)
        entropy = torch.special.entr(probabilities).sum()
        certainty = torch.stack([logprobs[token], entropy, best - second])
        if not certainty.isfinite().all():
            raise FloatingPointError("the model's logits are not finite")
        logprob, nats, margin = certainty.tolist()
        return SampledToken(int(token), logprob, nats, margin)

    def _choose(self, logits: Tensor) -> Tensor:
        if self._temperature == 0:
            return logits.argmax()
        count = min(self._top_k, len(logits)) or len(logits)
        values, ids = logits.topk(count)
        # Subtracting the maximum first keeps tiny temperatures from overflowing.
        weights = ((values - values[0]) / self._temperature).softmax(-1)
        return ids[torch.multinomial(weights, 1, generator=self._generator)].squeeze()
