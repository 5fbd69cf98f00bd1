"""What the decision costs a caller: the first tokens held back, and the judgement itself."""

import time
from collections.abc import Sequence
from itertools import pairwise
from operator import add
from statistics import median

from cases import HOLD_BACK_TOKENS
from judging import Aim
from latency import Row
from ranking import Interval

from tinybrain.chat import LocalModel, Message, Prefilled, Token
from tinybrain.payments.receipts import percentile
from tinybrain.routing.calibration.collecting import GREEDY
from tinybrain.routing.calibration.questions import Question
from tinybrain.routing.calibration.router import Router
from tinybrain.routing.gate import Gate, Limit
from tinybrain.routing.signals import Signals

WARM_UP = 3
REPEATS = 50
MS = 1000


async def deciding(
    model: LocalModel, router: Router, questions: Sequence[Question]
) -> tuple[Row, Aim]:
    """The row of questions asked one at a time, and what it should not exceed."""
    gate = gate_without_target(router)
    held_back, steps, judged = [], [], []
    for number, question in enumerate(questions):
        prefilled, tokens, times = await _opening(model, question)
        if number < WARM_UP or len(tokens) < HOLD_BACK_TOKENS:
            continue
        held_back.append((times[-1] - times[0]) * MS)
        steps += [(after - before) * MS for before, after in pairwise(times)]
        judged.append(_judging(gate, prefilled, tokens))
    step = median(steps)
    added = sorted(map(add, held_back, judged))
    interval = Interval(median(added), percentile(added, 0.05), percentile(added, 0.95))
    row: Row = {
        "n": len(added),
        "decode step ms": f"{step:.2f}",
        "eighth token after the first ms": _p50_p95(held_back),
        "the decision itself ms": _p50_p95(judged),
    }
    limit = round(HOLD_BACK_TOKENS * step + 1, 2)
    return row, Aim("added before the first token, ms (P5 to P95)", limit, False, interval)


def gate_without_target(router: Router) -> Gate:
    """The same work as the gate that serves, wherever its thresholds are."""
    prefill = router.prefill and Limit(estimate=router.prefill.p_wrong, max_p_wrong=1.0)
    return Gate(
        opening=Limit(estimate=router.opening.p_wrong, max_p_wrong=0.5),
        prefill=prefill,
        hold_back_tokens=router.hold_back_tokens,
        declines="I do not know",
    )


async def _opening(
    model: LocalModel, question: Question
) -> tuple[Prefilled, list[Token], list[float]]:
    tokens, times = [], []
    async for event in model.generate([Message("user", question.text)], GREEDY):
        if isinstance(event, Prefilled):
            prefilled = event
        elif isinstance(event, Token) and len(tokens) < HOLD_BACK_TOKENS:
            tokens.append(event)
            times.append(time.perf_counter())
    return prefilled, tokens, times


def _judging(gate: Gate, prefilled: Prefilled, tokens: Sequence[Token]) -> float:
    """Milliseconds of both points of the decision; the median, so that one pause counts once."""
    text = "".join(token.text for token in tokens)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        gate.judge_prompt(Signals.of([], prefilled))
        gate.judge_opening(Signals.of(tokens, prefilled), declined=gate.is_declined(text))
        times.append(time.perf_counter() - start)
    return median(times) * MS


def _p50_p95(values: Sequence[float]) -> str:
    ordered = sorted(values)
    return f"{percentile(ordered, 0.5):.3f} (P95 {percentile(ordered, 0.95):.3f})"
