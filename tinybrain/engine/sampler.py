"""Choosing the next token of each request, and telling how certain the model was of it.

Knows logits, no model: a row of them for each request, whose token does not depend on the others.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from tinybrain.engine.request import Request, SampledToken

BLOCK = 128
"""Logits whose maximum is taken first; the fastest for 65,536 on one CPU core of 64 to 256."""

COLDEST = 1e-6
"""Below this temperature the likeliest token is certain, and a float no longer divides by it."""


class Sampler:
    """What one request's choices depend on besides logits: its options, its seed, what was said."""

    def __init__(self, request: Request, device: torch.device) -> None:
        self.request = request
        ids, biases = zip(*request.logit_bias, strict=True) if request.logit_bias else ((), ())
        self._bias_ids = torch.tensor(ids, dtype=torch.long, device=device)
        self._biases = torch.tensor(biases, dtype=torch.float32, device=device)
        self._penalises = request.repetition_penalty != 1
        if self._penalises:
            self._said = torch.tensor(sorted(set(request.prompt)), device=device)
        self._generator = torch.Generator()  # the CPU's: a seed means the same on every device
        if request.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(request.seed % 2**63)
        self._given_back: list[float] = []

    def sample(self, logits: Tensor) -> SampledToken:
        """Choose from float logits [V].

        Raises:
            FloatingPointError: The logits are not finite.
        """
        (token,) = sample([self], logits[None], [None])
        if isinstance(token, FloatingPointError):
            raise token
        return token

    @property
    def adjusts(self) -> bool:
        """Whether what is chosen from are not the model's own logits."""
        return self._penalises or bool(self.request.logit_bias)

    def adjust(self, logits: Tensor) -> Tensor:
        """Logits [V] with the bias, then with what was said made less likely.

        Source: OpenAI API reference (logit_bias); CTRL (Keskar et al. 2019), as in transformers.
        """
        if self.request.logit_bias:
            logits = logits.index_add(0, self._bias_ids, self._biases)
        if self._penalises:
            penalty, said = self.request.repetition_penalty, logits[self._said]
            said = torch.where(said > 0, said / penalty, said * penalty)
            logits = logits.index_copy(0, self._said, said)
        return logits

    def count_candidates(self, logits: Tensor) -> int | None:
        """Of how many of the likeliest tokens of logits [V] one is chosen; None for any of them."""
        request = self.request
        if request.temperature < COLDEST:
            return 1
        if request.top_k:
            return min(request.top_k, len(logits))
        if request.top_p >= 1:
            return None
        shares = ((logits - logits.amax()) / request.temperature).softmax(-1)
        # Those of less than the average share of 1 - p have less than 1 - p together; only the
        # few others are sorted.
        likely = shares[shares >= (1 - request.top_p) / len(logits)].sort(descending=True).values
        return max(1, int(nucleus(likely, request.top_p).sum()))

    def draw(self) -> float:
        """The next of the request's own random numbers in [0, 1)."""
        if self._given_back:
            return self._given_back.pop()
        return torch.rand((), generator=self._generator, dtype=torch.float64).item()

    def give_back(self, draw: float) -> None:
        """Have the next draw be one that nothing came of."""
        self._given_back.append(draw)

    def note(self, token: Tensor) -> None:
        """Take in the chosen id []."""
        if self._penalises:
            self._said = torch.cat([self._said, token[None]])


def sample(
    samplers: Sequence[Sampler], logits: Tensor, forced: Sequence[int | None]
) -> list[SampledToken | FloatingPointError]:
    """Choose a token for each request from its row of float logits [B, V].

    Where a token is `forced`, it is chosen without a draw. A row that is not finite gets an error
    in place of its token. The device is waited for once, and once more for each request with
    top-p but no top-k.
    """
    ids = _choose(samplers, logits, forced)
    shifted, log_total, figures = describe(logits, ids)
    likeliest = [
        _likeliest(shifted[row], log_total[row], sampler.request.top_logprobs)
        for row, sampler in enumerate(samplers)
        if sampler.request.top_logprobs
    ]
    told = torch.cat([figures, *likeliest]).tolist()
    alternatives = iter(told[len(samplers) :])
    return [
        sampled(
            row,
            [next(alternatives) for _ in range(sampler.request.top_logprobs)],
            forced=token is not None,
        )
        for row, sampler, token in zip(told, samplers, forced, strict=False)
    ]


def describe(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What there is to tell of chosen ids [B] under float logits [B, V].

    The logits minus each row's largest, the log [B] of what their exponentials sum up to, and
    figures [B, 4]: id, logprob, entropy, margin.
    """
    peak, second = largest(logits, 2)[0].T
    shifted = logits - peak[:, None]
    weights = shifted.exp()
    total = weights.sum(-1)
    log_total = total.log()
    entropy = log_total - torch.linalg.vecdot(weights, shifted) / total
    logprob = shifted.gather(-1, ids[:, None])[:, 0] - log_total
    margin = (1 - (second - peak).exp()) / total
    figures = torch.stack([ids, logprob, entropy, margin], dim=-1)  # a float holds any id exactly
    return shifted, log_total, figures


def figures_of(logits: Tensor, ids: Tensor) -> Tensor:
    """Only the figures [B, 4] of `describe`."""
    return describe(logits, ids)[-1]


def _choose(samplers: Sequence[Sampler], logits: Tensor, forced: Sequence[int | None]) -> Tensor:
    """Ids [B]; rows with as many candidates are drawn together."""
    if any(sampler.adjusts for sampler in samplers):
        logits = torch.stack([s.adjust(row) for s, row in zip(samplers, logits, strict=True)])
    groups: defaultdict[int | None, list[int]] = defaultdict(list)
    for row, sampler in enumerate(samplers):
        if forced[row] is None:
            groups[sampler.count_candidates(logits[row])].append(row)
    ids = torch.tensor([token or 0 for token in forced], device=logits.device)
    for count, rows in groups.items():
        chosen = logits if len(rows) == len(samplers) else logits[rows]
        ids[rows] = (
            first_of_largest(chosen)
            if count == 1
            else _draw([samplers[row] for row in rows], chosen, count)
        )
    for sampler, token in zip(samplers, ids, strict=True):
        sampler.note(token)
    return ids


def _draw(samplers: Sequence[Sampler], logits: Tensor, count: int | None) -> Tensor:
    """Ids [B], one of the `count` likeliest in each row, or any: where the draw falls."""
    values, ids = (logits, None) if count is None else largest(logits, count)
    requests = [sampler.request for sampler in samplers]
    temperatures = _column([request.temperature for request in requests], logits)
    kept = _kept(requests, tempered(values, temperatures))
    draws = [sampler.draw() for sampler in samplers]
    at = fall(kept, torch.tensor(draws, dtype=torch.float64, device=logits.device))
    return (at if ids is None else ids.gather(-1, at))[:, 0]


def tempered(logits: Tensor, temperatures: Tensor) -> Tensor:
    """Probabilities [B, K] under logits [B, K] at temperatures [B, 1]."""
    # Subtracting the maximum first keeps tiny temperatures from overflowing.
    return ((logits - logits.amax(-1, keepdim=True)) / temperatures).softmax(-1)


def fall(weights: Tensor, draws: Tensor) -> Tensor:
    """Where in weights [B, K] draws [B] in [0, 1) of their sums fall; [B, 1]."""
    sums = weights.cumsum(-1, dtype=torch.float64)
    # The clamp matters for rows that are not finite.
    return torch.searchsorted(sums, draws[:, None] * sums[:, -1:]).clamp(max=sums.shape[-1] - 1)


def _kept(requests: Sequence[Request], weights: Tensor) -> Tensor:
    """Weights [B, K] with 0 for what top-p and min-p leave out."""
    kept = weights
    # Rounded sums exceed 1. Without a top-k, top-p has been applied in counting the candidates.
    bounds = [r.top_p if r.top_k and r.top_p < 1 else math.inf for r in requests]
    if min(bounds) < 1:
        kept = kept * nucleus(weights, _column(bounds, weights))
    if any(request.min_p for request in requests):
        shares = _column([request.min_p for request in requests], weights)
        kept = kept * (weights >= shares * weights.amax(-1, keepdim=True))
    return kept


def nucleus(weights: Tensor, top_p: float | Tensor) -> Tensor:
    """Which of descending weights [..., K] stay: those before them have less than top_p together.

    Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration.
    """
    return weights.cumsum(-1) - weights < top_p


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def largest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Values and ids [B, count], descending, as of `topk`, which is slow for long rows on a CPU.

    The largest are all in as many blocks, those with the largest maxima.
    """
    if logits.shape[-1] % BLOCK or count * BLOCK * 4 > logits.shape[-1]:
        values, ids = logits.topk(count)
        return values, ids
    blocks = logits.reshape(len(logits), -1, BLOCK)
    best = blocks.amax(-1).topk(count).indices
    inside = blocks.gather(1, best[..., None].expand(-1, -1, BLOCK)).flatten(1)
    values, at = inside.topk(count)
    return values, best.gather(-1, at // BLOCK) * BLOCK + at % BLOCK


def first_of_largest(logits: Tensor) -> Tensor:
    """Ids [B], as of `argmax`: also among equals, which 16 bits make of close ones."""
    if logits.shape[-1] % BLOCK:
        return logits.argmax(-1)
    blocks = logits.reshape(len(logits), -1, BLOCK)
    best = blocks.amax(-1).argmax(-1)
    inside = blocks[torch.arange(len(logits), device=logits.device), best]
    return best * BLOCK + inside.argmax(-1)


def _likeliest(logits: Tensor, log_total: Tensor, count: int) -> Tensor:
    """The `count` largest of logits [V] as rows of four figures, [id, logprob, 0, 0]."""
    (values,), (ids,) = largest(logits[None], count)
    zeros = torch.zeros_like(values)
    return torch.stack([ids, values - log_total, zeros, zeros], dim=-1)


def sampled(
    figures: Sequence[float], likeliest: Sequence[Sequence[float]] = (), *, forced: bool = False
) -> SampledToken | FloatingPointError:
    """The token of a row of `describe`'s figures, with rows of the likeliest like it."""
    if not all(map(math.isfinite, figures)):
        return FloatingPointError("the model's logits are not finite")
    token, logprob, entropy, margin = figures
    top = tuple((int(i), alternative) for i, alternative, *_ in likeliest)
    return SampledToken(int(token), logprob, entropy, margin, top, forced)
