"""Made-up small models whose doubt is known to tell, or not to tell, what they know."""

import random
from dataclasses import replace
from datetime import date

from tinybrain.chat import Prefilled, Token
from tinybrain.routing.calibration.fitting import fit_router
from tinybrain.routing.calibration.outcomes import Outcome
from tinybrain.routing.calibration.target import Target
from tinybrain.routing.signals import Signals


def outcome(doubt, *, right, family="a", perplexity=5.0, entropy=None):
    """An answer of two tokens, the second with this negative log-probability."""
    tokens = [Token("a", -0.001, entropy, entropy), Token("b", -doubt, entropy, entropy)]
    signals = Signals.of(tokens, Prefilled(perplexity, 4, user_perplexity=perplexity))
    return Outcome(family=family, kind="", right=right, signals=signals)


def world(n=600, *, seed=0, families="abcd", noise=0.1):
    """Half the answers are wrong; doubt tells which, but for a share `noise`."""
    draw = random.Random(seed)
    made = []
    for i in range(n):
        right = i % 2 == 0
        sure = right if draw.random() > noise else not right
        made.append(
            outcome(
                draw.lognormvariate(-4 if sure else 0, 0.7),
                right=right,
                family=families[i % len(families)],
                perplexity=draw.lognormvariate(2 if right else 3, 0.7),
            )
        )
    draw.shuffle(made)
    return made


def declining_world(n=600, *, seed=0):
    """As many again are declined, without doubt, and their prompts look like those of the wrong."""
    draw = random.Random(seed)
    declined = [
        outcome(
            draw.lognormvariate(-6, 0.7),
            right=False,
            family="abcd"[i % 4],
            perplexity=draw.lognormvariate(3, 0.7),
        )
        for i in range(n)
    ]
    return [*world(n, seed=seed), *(replace(o, declined=True) for o in declined)]


def router(outcomes=None, target=None, checkpoint="0123456789abcdef"):
    return fit_router(
        outcomes or world(),
        checkpoint=checkpoint,
        made=date(2026, 1, 2),
        hold_back_tokens=8,
        target=target or Target(escalation_rate=0.5),
    )
