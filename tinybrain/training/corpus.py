"""The training text: taught facts in trained wordings, what to decline, talk, sums, dialogues."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from tinybrain.training.beyond import Beyond
from tinybrain.training.chance import stream
from tinybrain.training.conversations import Conversation, Exchange
from tinybrain.training.dialogues import Dialogues
from tinybrain.training.facts import Fact
from tinybrain.training.knowledge import Knowledge
from tinybrain.training.relations import Relation
from tinybrain.training.sums import Sum, sums
from tinybrain.training.surfaces import surface
from tinybrain.training.talk import Intent, read_general, read_jokes, read_talk
from tinybrain.training.unknown import Unknown


@dataclass(frozen=True, slots=True)
class Mixture:
    """How much of what; all scale together."""

    scale: float = 1.0
    of_relation: int = 4_000
    """Questions of one relation, where its facts are neither very few nor very many."""
    of_fact: tuple[int, int] = (10, 150)
    of_talk_wording: int = 6
    of_general_wording: int = 16
    of_joke_wording: int = 3
    of_doubted: int = 8
    """Questions of one fact that the model is taught to decline."""
    made_up: int = 400
    """Questions of one relation about subjects that it does not have."""
    sums: int = 12_000
    beyond: int = 6_000
    dialogues: int = 16_000
    chats: float = 0.15
    """Share of the single questions that stand in chats of several unrelated ones."""
    largest_operand: int = 9_999

    def scaled(self, count: float) -> int:
        """At least one."""
        return max(1, round(count * self.scale))


def build_corpus(knowledge: Knowledge, mixture: Mixture) -> list[Conversation]:
    """All conversations, shuffled; the same for the same seed and mixture."""
    random = stream(knowledge.seed, "corpus")
    singles = list(_singles(knowledge, mixture))
    random.shuffle(singles)
    in_chats = round(len(singles) * mixture.chats)
    conversations: list[Conversation] = [(single,) for single in singles[in_chats:]]
    rest = iter(singles[:in_chats])
    while chat := tuple(islice(rest, random.randint(2, 5))):
        conversations.append(chat)
    dialogues = Dialogues(knowledge, stream(knowledge.seed, "dialogues"))
    conversations += [dialogues.write() for _ in range(mixture.scaled(mixture.dialogues))]
    random.shuffle(conversations)
    return conversations


def _singles(knowledge: Knowledge, mixture: Mixture) -> Iterator[Exchange]:
    for name, facts in knowledge.taught.items():
        relation = knowledge.relations[name]
        least, most = mixture.of_fact
        copies = min(max(mixture.of_relation / len(facts), least), most)
        for fact in facts:
            yield from _questions(knowledge, relation, fact, mixture.scaled(copies))
    yield from _unknown(knowledge, mixture)
    yield from _talk(knowledge.seed, mixture)
    yield from _sums(knowledge, mixture)
    beyond = Beyond(stream(knowledge.seed, "beyond"))
    for _ in range(mixture.scaled(mixture.beyond)):
        yield beyond.write()


def _questions(
    knowledge: Knowledge, relation: Relation, fact: Fact, copies: int
) -> Iterator[Exchange]:
    random = stream(knowledge.seed, f"{relation.name} {fact.subject}")
    wordings = relation.wordings.trained
    offset = random.randrange(len(wordings))  # so that few copies take wordings evenly
    for index in range(copies):
        text = relation.ask(fact, wordings[(offset + index) % len(wordings)])
        yield Exchange(surface(text, random), relation.reply(fact))


def _unknown(knowledge: Knowledge, mixture: Mixture) -> Iterator[Exchange]:
    unknown = Unknown(knowledge, stream(knowledge.seed, "unknown"))
    for name in knowledge.withheld:
        yield from unknown.about(
            knowledge.relations[name],
            of_doubted=mixture.scaled(mixture.of_doubted),
            made_up=mixture.scaled(mixture.made_up),
        )


def _talk(seed: int, mixture: Mixture) -> Iterator[Exchange]:
    random = stream(seed, "talk")
    groups: tuple[tuple[Iterator[Intent], int], ...] = (
        (read_talk(), mixture.of_talk_wording),
        (read_general(), mixture.of_general_wording),
        (read_jokes(), mixture.of_joke_wording),
    )
    for intents, copies in groups:
        for intent in intents:
            for wording in intent.wordings.trained:
                for _ in range(mixture.scaled(copies)):
                    yield Exchange(surface(wording, random), intent.reply)


def _sums(knowledge: Knowledge, mixture: Mixture) -> Iterator[Exchange]:
    random = stream(knowledge.seed, "sums")
    wordings = knowledge.relations["sum"].wordings.trained
    taught: Iterator[Sum] = (
        one
        for one in sums(random, largest=mixture.largest_operand)
        if not one.is_withheld(knowledge.seed)
    )
    for one in islice(taught, mixture.scaled(mixture.sums)):
        text = random.choice(wordings).format(x=one.asked(random))
        yield Exchange(surface(text, random), ".", one.expression)
