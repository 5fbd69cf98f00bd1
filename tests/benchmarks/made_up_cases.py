"""Cases of a made-up small model, whose doubt is known to tell, or not, what it answers wrong."""

import random

from cases import Case

from tinybrain.chat import Prefilled, Token
from tinybrain.routing.signals import Signals


def case(doubt=0.1, *, right=True, declined=False, kind="fact", text="What is it?", **others):
    """An answer of one token with this negative log-probability."""
    signals = Signals.of([Token("a", -doubt, doubt, 0.5)], Prefilled(5.0, 4, user_perplexity=5.0))
    given = {"family": "a", "answer": "It is it.", "split": "test"} | others
    return Case(kind=kind, right=right, declined=declined, text=text, signals=signals, **given)


def world(n=1200, *, noise=0.0, seed=0):
    """Of half of the facts and all small talk it is right, of the rest wrong, and mostly knows."""
    draw = random.Random(seed)
    kinds = ("fact", "fact", "talk", "out_of_scope")
    made = []
    for i in range(n):
        kind = kinds[i % 4]
        right = kind == "talk" or (kind == "fact" and draw.random() < 0.5)
        sure = right if draw.random() > noise else not right
        made.append(
            case(
                draw.lognormvariate(-4 if sure else 0, 0.7),
                right=right,
                kind=kind,
                family=f"{kind}{draw.randrange(4)}",
                text=f"Number {i}",
                split=draw.choice(("calibration", "test")),
            )
        )
    return made
