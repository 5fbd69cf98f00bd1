"""Scores of doubt that are compared: one number a case, higher where it is likelier to be wrong."""

import math
import random
from collections.abc import Callable, Mapping, Sequence

from cases import Case

from tinybrain.chat import Message
from tinybrain.routing.rules import Rules

Scores = list[float]
Doubt = Callable[[Case], float | None]

RULES = "keyword and complexity rules"
RANDOM = "random"
LENGTH = "answer length"
PERPLEXITY = "prompt perplexity"

ESCALATED = 1.0
RULED = {"local": 0.0, None: 0.5, "escalate": ESCALATED}

SIGNALS: Mapping[str, tuple[str, Doubt]] = {
    "lowest log-probability": ("min_logprob", lambda c: -c.signals.min_logprob),
    "mean log-probability": ("mean_logprob", lambda c: -c.signals.mean_logprob),
    "highest entropy": ("max_entropy", lambda c: c.signals.max_entropy),
    "mean entropy": ("mean_entropy", lambda c: c.signals.mean_entropy),
    "entropy of the first token": ("first_entropy", lambda c: c.signals.first_entropy),
    "lowest margin": ("min_margin", lambda c: _lack(c.signals.min_margin)),
    PERPLEXITY: ("perplexity", lambda c: c.signals.perplexity),
    "perplexity of the user's words": ("user_perplexity", lambda c: c.signals.user_perplexity),
}
"""What one signal alone says, beside the feature of the calibration that is made of it."""


def baselines(cases: Sequence[Case], *, seed: int) -> dict[str, Scores]:
    """Every score that needs no fitting, of the signals that the model tells with each answer."""
    draw = random.Random(seed)
    found = {name: [doubt(case) for case in cases] for name, (_, doubt) in SIGNALS.items()}
    told = {name: scores for name, scores in found.items() if None not in scores}
    return told | {
        LENGTH: [float(len(case.answer)) for case in cases],
        RULES: [ruled(case) for case in cases],
        RANDOM: [draw.random() for _ in cases],
    }


def ruled(case: Case) -> float:
    """What the rules say without any model."""
    return RULED[Rules().decide([Message("user", case.text)]).verdict]


def heeding_declining(scores: Sequence[float], cases: Sequence[Case]) -> Scores:
    """What the model itself declined is the most doubtful."""
    return [math.inf if c.declined else score for c, score in zip(cases, scores, strict=True)]


def _lack(margin: float | None) -> float | None:
    return None if margin is None else 1 - margin
