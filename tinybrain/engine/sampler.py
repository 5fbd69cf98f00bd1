"""Choosing one request's next token, and telling how certain the model was of it."""

import torch
from torch import Tensor

from tinybrain.engine.request import Request, SampledToken


class Sampler:
    """Draws tokens for one request; its own generator keeps it independent of the batch."""

    def __init__(self, request: Request, device: torch.device) -> None:
        self._request = request
        self._penalises = request.repetition_penalty != 1
        if self._penalises:
            self._said = torch.tensor(sorted(set(request.prompt)), device=device)
        self._generator = torch.Generator(device)
        if request.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(request.seed % 2**63)

    def sample(self, logits: Tensor) -> SampledToken:
        """Choose from float logits [V].

        Raises:
            FloatingPointError: The logits are not finite.
        """
        logprobs = logits.log_softmax(-1)
        probabilities = logprobs.exp()
        best, second = probabilities.topk(2).values
        token = self._choose(self._penalised(logits))
        entropy = torch.special.entr(probabilities).sum()
        certainty = torch.stack([logprobs[token], entropy, best - second])
        if not certainty.isfinite().all():
            raise FloatingPointError("the model's logits are not finite")
        logprob, nats, margin = certainty.tolist()
        return SampledToken(int(token), logprob, nats, margin)

    def _penalised(self, logits: Tensor) -> Tensor:
        """Make what was said less likely. Source: CTRL (Keskar et al. 2019), as in transformers."""
        if not self._penalises:
            return logits
        penalty = self._request.repetition_penalty
        said = logits[self._said]
        return logits.index_copy(
            0, self._said, torch.where(said > 0, said / penalty, said * penalty)
        )

    def _choose(self, logits: Tensor) -> Tensor:
        request = self._request
        if request.temperature == 0:
            token = logits.argmax()
        else:
            values, ids = logits.topk(min(request.top_k, len(logits)) or len(logits))
            # Subtracting the maximum first keeps tiny temperatures from overflowing.
            weights = ((values - values[0]) / request.temperature).softmax(-1)
            token = ids[torch.multinomial(self._kept(weights), 1, generator=self._generator)]
            token = token.squeeze()
        if self._penalises:
            self._said = torch.cat([self._said, token[None]])
        return token

    def _kept(self, weights: Tensor) -> Tensor:
        """Probabilities [K], descending, with 0 for what top-p and min-p leave out."""
        top_p, min_p = self._request.top_p, self._request.min_p
        if top_p < 1:
            # A token stays while those before it have less together: the first always does. Not
            # asked of a top_p of 1, because rounded sums of many tokens exceed that.
            weights = weights * (weights.cumsum(-1) - weights < top_p)
        if min_p > 0:
            weights = weights * (weights >= min_p * weights[0])
        return weights
