"""What a fact is, and which facts the model is not shown.

A third of each pool of facts is withheld, so that there is something to be unsure about. Facts
that tell the same thing in both directions (a capital's country, a country's capital) share a pool
and a key, and are withheld together.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tinybrain.training.chance import third


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that can be asked about: a relation, its subject and the answer.

    `accepted` are answers that count as right, `parts` further fields of wordings and reply.
    Facts of one `pool` with the same `key` are withheld together; those well known never are.
    """

    relation: str
    subject: str
    answer: str
    accepted: tuple[str, ...]
    pool: str
    key: str
    well_known: bool = False
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, str]:
        """What stands for {x}, {y}, {a} and so on."""
        return {"x": self.subject, "a": self.subject, "y": self.answer, **self.parts}


def fact(
    relation: str,
    subject: str,
    answer: str,
    *others: str,
    well_known: bool = False,
    pool: str | None = None,
    key: str | None = None,
    **parts: str,
) -> Fact:
    """A fact of its own pool unless one is named; `others` are accepted beside the answer."""
    accepted = (answer, *(other for other in others if other != answer))
    return Fact(
        relation, subject, answer, accepted, pool or relation, key or subject, well_known, parts
    )


def withheld_keys(
    facts: Iterable[Fact], *, complete: Iterable[str], seed: int
) -> set[tuple[str, str]]:
    """The (pool, key) of the facts not shown; none of the pools that are taught `complete`."""
    keys: dict[str, dict[str, bool]] = defaultdict(dict)
    for one in facts:
        known = keys[one.pool].get(one.key, False)
        keys[one.pool][one.key] = known or one.well_known
    withheld = set()
    for pool in sorted(keys.keys() - set(complete)):
        candidates = [key for key, well_known in keys[pool].items() if not well_known]
        withheld |= {(pool, key) for key in third(seed, candidates, len(keys[pool]))}
    return withheld
