"""Days on which other questions are asked than those the gate was calibrated on."""

import random

from worlds import outcome, world

from tinybrain.payments.records import Judged


def decide(gate, outcomes):
    """What the ledger keeps of them."""
    return [Judged(o.signals.recorded(), _reason(gate, o.signals)) for o in outcomes]


def _reason(gate, signals):
    if not gate.judge_prompt(signals).passes:
        return "out_of_scope"
    return "none" if gate.judge_opening(signals).passes else "uncertainty"


def harder(n, *, seed=0):
    """More is asked that the model does not know."""
    draw = random.Random(seed)
    right = [draw.random() > 0.75 for _ in range(n)]
    return [
        outcome(draw.lognormvariate(-4 if r else 0, 1.0), right=r, perplexity=8.0) for r in right
    ]


def doubtful(n, *, seed=0):
    """The model doubts what it knows: P(wrong) is too high for all."""
    return [
        outcome(-o.signals.min_logprob * 10, right=o.right, perplexity=o.signals.perplexity)
        for o in world(n, seed=seed)
    ]
