"""All that the model could be asked, what of it is withheld, and what of that it is asked."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from tinybrain.training.chance import rank
from tinybrain.training.elements import element_facts
from tinybrain.training.facts import Fact, withheld_keys
from tinybrain.training.geography import geography_facts
from tinybrain.training.order import order_facts, spelling_facts
from tinybrain.training.relations import Relation, read_relations
from tinybrain.training.tables import kind_facts, table_facts
from tinybrain.training.talk import read_general
from tinybrain.training.wordnet import definition_facts


def own_facts() -> Iterator[Fact]:
    """Facts that need no package and no file of others."""
    yield from table_facts()
    yield from order_facts()
    opposites = [one.subject for one in table_facts() if one.relation == "opposite"]
    yield from spelling_facts([*(kind.subject for kind in kind_facts()), *opposites])


def all_facts(wordnet: Path) -> Iterator[Fact]:
    """Own facts and those of GeoNames, periodictable and WordNet.

    Raises:
        ConfigError: One of the three is missing; the message says how to get it.
    """
    yield from own_facts()
    yield from geography_facts()
    yield from element_facts()
    yield from definition_facts(wordnet, without=_told_otherwise())


def _told_otherwise() -> Iterator[str]:
    """Words whose definition would tell a fact of another relation: a dozen is twelve."""
    for one in table_facts():
        if one.relation in {"kind", "opposite"}:
            yield one.subject
        elif one.relation == "units":
            yield from re.findall(r"\w+", one.parts["whole"])


class Knowledge:
    """Facts by relation, told apart into those taught and those withheld.

    Withheld are `doubted`, which the model is taught to decline, and `unseen`; a few are neither,
    because another relation tells them.
    """

    def __init__(self, facts: Iterable[Fact], *, seed: int) -> None:
        self.seed = seed
        self.relations: Mapping[str, Relation] = read_relations()
        facts = list(facts)
        complete = {name for name, relation in self.relations.items() if relation.complete}
        self._withheld_keys = withheld_keys(facts, complete=complete, seed=seed)
        self.taught = self._by_relation(f for f in facts if not self.withholds(f))
        self.withheld = self._by_relation(f for f in facts if self.withholds(f))
        self.doubted = self._by_relation(f for f in facts if self.doubts(f))
        told = self._told()
        self.unseen = self._by_relation(
            f for f in facts if self.withholds(f) and not self.doubts(f) and not told(f)
        )

    def withholds(self, fact: Fact) -> bool:
        """Whether the model is not shown it."""
        return (fact.pool, fact.key) in self._withheld_keys

    def doubts(self, fact: Fact) -> bool:
        """Whether the model is asked it, and taught to decline; half of the withheld are."""
        return self.withholds(fact) and bool(rank(self.seed, f"doubted {fact.pool} {fact.key}") % 2)

    def _told(self) -> Callable[[Fact], bool]:
        """Whether some reply has subject and answer in it: "Not easy: that is what hard means"."""
        replies = [
            *(self.relations[f.relation].reply(f) for fs in self.taught.values() for f in fs),
            *(intent.reply for intent in read_general()),
        ]
        texts = [_words(reply) for reply in replies]

        def told(fact: Fact) -> bool:
            wanted = _words(f"{fact.subject} {fact.answer}")
            return any(wanted <= text for text in texts)

        return told

    @staticmethod
    def _by_relation(facts: Iterable[Fact]) -> Mapping[str, list[Fact]]:
        by_relation: dict[str, list[Fact]] = defaultdict(list)
        for one in facts:
            by_relation[one.relation].append(one)
        return by_relation


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower())) - {"a", "an", "the"}
