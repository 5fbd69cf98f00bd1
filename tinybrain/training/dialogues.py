"""Short conversations whose later turns need the earlier ones."""

from collections.abc import Callable, Iterable, Sequence
from random import Random

from tinybrain.training.conversations import Conversation, Exchange
from tinybrain.training.data_files import lines, read_data
from tinybrain.training.facts import Fact
from tinybrain.training.knowledge import Knowledge
from tinybrain.training.surfaces import surface
from tinybrain.training.talk import read_jokes, read_talk

SINGLE_ONLY = frozenset({"units", "month_number", "sum"})
"""Relations that a follow-up in few words does not make sense for."""

SWAPPED = 0.5
"""The share of pairs of facts about one subject that are asked the other way round."""
WITHOUT_SMALL_TALK = 0.5
"""The share of dialogues that could end with small talk and do not."""


class Dialogues:
    """Writes dialogues about what is taught."""

    def __init__(self, knowledge: Knowledge, random: Random) -> None:
        self._knowledge = knowledge
        self._random = random
        self._texts = read_data("dialogues")
        self._talk = {intent.name: intent for intent in read_talk()}
        self._jokes = list(read_jokes())
        self._relations = sorted(
            name
            for name, facts in knowledge.taught.items()
            if name not in SINGLE_ONLY and len(facts) > 1
        )
        pronouns = {n: lines(t) for n, t in self._texts["pronoun"].items()}
        self._by_subject = _by_subject(knowledge, pronouns)
        self._pronouns = pronouns

    def write(self) -> Conversation:
        """One dialogue, of a kind chosen at random."""
        kinds: Sequence[Callable[[], list[Exchange]]] = (
            *(self._follow_ups, self._follow_ups, self._follow_ups),
            *(self._pronoun, self._pronoun, self._name, self._name),
            *(self._liking, self._jokes_in_a_row, self._sum_and_more),
        )
        return tuple(self._random.choice(kinds)())

    def _say(self, wordings: str | Sequence[str], reply: str, **fields: str) -> Exchange:
        choices = lines(wordings) if isinstance(wordings, str) else wordings
        text = self._random.choice(choices).format(**fields)
        return Exchange(surface(text, self._random, courtesy=0.05), reply)

    def _ask(self, fact: Fact) -> Exchange:
        relation = self._knowledge.relations[fact.relation]
        wording = self._random.choice(relation.wordings.trained)
        text = surface(relation.ask(fact, wording), self._random, courtesy=0.05)
        return Exchange(text, relation.reply(fact))

    def _follow_ups(self) -> list[Exchange]:
        name = self._random.choice(self._relations)
        relation, facts = self._knowledge.relations[name], self._knowledge.taught[name]
        first, *others = self._random.sample(facts, min(len(facts), self._random.choice((2, 3))))
        field = "a" if "{a}" in relation.wordings.trained[0] else "x"
        follow_up = self._texts["follow_up"]
        return [
            self._ask(first),
            *(self._say(follow_up, relation.reply(f), x=f.fields[field]) for f in others),
            *self._small_talk("after_fact"),
        ]

    def _pronoun(self) -> list[Exchange]:
        if not self._by_subject:
            return self._follow_ups()
        first, *others = self._random.choice(self._by_subject)
        second = self._random.choice(others)
        if self._random.random() < SWAPPED:
            first, second = second, first
        reply = self._knowledge.relations[second.relation].reply(second)
        return [self._ask(first), self._say(self._pronouns[second.relation], reply)]

    def _name(self) -> list[Exchange]:
        return self._remembered("name", self._random.choice(self._texts["names"].split()))

    def _liking(self) -> list[Exchange]:
        return self._remembered("like", self._random.choice(self._texts["likes"].split()))

    def _remembered(self, what: str, value: str) -> list[Exchange]:
        told, asked = (self._texts[f"{verb}_{what}"] for verb in ("tell", "ask"))
        between = [self._any_fact() for _ in range(self._random.choice((0, 0, 1, 2)))]
        return [
            self._say(told["wordings"], told["reply"].format(x=value), x=value),
            *between,
            self._say(asked["wordings"], asked["reply"].format(x=value)),
        ]

    def _any_fact(self) -> Exchange:
        relation = self._random.choice(self._relations)
        return self._ask(self._random.choice(self._knowledge.taught[relation]))

    def _jokes_in_a_row(self) -> list[Exchange]:
        start = self._random.randrange(len(self._jokes) - 2)
        first, *others = self._jokes[start : start + self._random.choice((2, 3))]
        return [
            self._say(first.wordings.trained, first.reply),
            *(self._say(self._texts["another_joke"], joke.reply) for joke in others),
            *self._small_talk("after_joke"),
        ]

    def _sum_and_more(self) -> list[Exchange]:
        left, right, more = (self._random.randint(0, 99) for _ in range(3))
        wording = self._random.choice(self._knowledge.relations["sum"].wordings.trained)
        asked = surface(wording.format(x=f"{left} + {right}"), self._random)
        added = self._say(self._texts["add_more"], "", x=str(more))
        total = f"{left + right}+{more}"
        return [Exchange(asked, ".", f"{left}+{right}"), Exchange(added.user, ".", total)]

    def _small_talk(self, after: str) -> list[Exchange]:
        if self._random.random() < WITHOUT_SMALL_TALK:
            return []
        intent = self._talk[self._random.choice(self._texts[after])]
        return [self._say(intent.wordings.trained, intent.reply)]


def _by_subject(knowledge: Knowledge, relations: Iterable[str]) -> list[list[Fact]]:
    """Taught facts of these relations that share a subject, two or more together."""
    found: dict[str, list[Fact]] = {}
    for relation in relations:
        for fact in knowledge.taught.get(relation, ()):
            found.setdefault(fact.subject, []).append(fact)
    return [facts for _, facts in sorted(found.items()) if len(facts) > 1]
