"""Questions of the taught relations that the model is taught to decline.

A model that is only ever shown answers answers everything. It learns to say that it does not know
from three kinds of subjects: half of the withheld ones, subjects of other relations, and names
blended from two subjects, which no one has. What it says of those it has never met, neither told
nor asked, is what the other half of the withheld facts measures.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from random import Random

from tinybrain.training.beyond import beyond_reply
from tinybrain.training.conversations import Exchange
from tinybrain.training.english import with_article
from tinybrain.training.facts import Fact
from tinybrain.training.knowledge import Knowledge
from tinybrain.training.relations import Relation
from tinybrain.training.surfaces import plain, surface
from tinybrain.training.talk import read_general, read_talk

WITHOUT_NAMES = frozenset({"units"})
"""Relations whose subject is no single name."""
BLENDED = 0.5
"""Of the subjects that are none, the share that is blended where names can be."""
ASKED_AS_WELL: Mapping[str, str] = {"country_of_capital": "city_country"}
"""Relations whose subjects another one has, too: a capital is a city."""


class Unknown:
    """Writes such questions, and the reply to them."""

    def __init__(self, knowledge: Knowledge, random: Random) -> None:
        self._knowledge = knowledge
        self._random = random
        self._reply = beyond_reply()
        self._taught = [fact for facts in knowledge.taught.values() for fact in facts]
        self._answered = _answered(knowledge)
        self._asked = {
            (relation, fact.subject.lower())
            for by_relation in (knowledge.taught, knowledge.withheld)
            for name, facts in by_relation.items()
            for fact in facts
            for relation in (name, ASKED_AS_WELL.get(name, name))
        }

    def about(self, relation: Relation, *, of_doubted: int, made_up: int) -> Iterator[Exchange]:
        """Each doubted fact of the relation so often, and so many subjects that are none."""
        subjects = [
            f for f in self._knowledge.doubted.get(relation.name, ()) for _ in range(of_doubted)
        ]
        if relation.name not in WITHOUT_NAMES:
            subjects += [self._no_subject(relation) for _ in range(made_up)]
        for fact in subjects:
            text = relation.ask(fact, self._random.choice(relation.wordings.trained))
            if plain(text) not in self._answered:  # "where is Peru" asks for its continent, too
                yield Exchange(surface(text, self._random), self._reply)

    def _no_subject(self, relation: Relation) -> Fact:
        """Something that the relation does not have, as if it were one of its facts."""
        own = self._knowledge.taught[relation.name]
        while True:
            like = self._random.choice(own)
            if like.subject.replace(" ", "").isalpha() and self._random.random() < BLENDED:
                subject = blend(like.subject, self._random.choice(own).subject)
            else:
                subject = self._random.choice(self._taught).subject
            if (relation.name, subject.lower()) not in self._asked:
                return _renamed(like, subject)


def _answered(knowledge: Knowledge) -> set[str]:
    """All that has an answer or, as it measures the model, must not be asked."""
    intents = (*read_talk(), *read_general())
    texts = {plain(w) for i in intents for w in i.wordings.trained + i.wordings.new}
    for by_relation in (knowledge.taught, knowledge.unseen):
        for name, facts in by_relation.items():
            relation = knowledge.relations[name]
            wordings = relation.wordings.trained + relation.wordings.new
            texts |= {plain(relation.ask(fact, w)) for fact in facts for w in wordings}
    return texts


def blend(first: str, second: str) -> str:
    """The first half of one name and the second half of another: Bra(zil) and (Ke)nya, Branya."""
    return first[: (len(first) + 1) // 2] + second[len(second) // 2 :].lower()


def _renamed(fact: Fact, subject: str) -> Fact:
    """The fact with another subject."""
    name = subject.startswith("the ") or subject[0].isupper() or subject[0].isdigit()
    return replace(fact, subject=subject, parts={"a": subject if name else with_article(subject)})
