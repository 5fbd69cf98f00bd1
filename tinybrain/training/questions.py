"""The questions that measure what a model has learned: for evaluation, calibration, benchmarks.

A question's `split` depends on what it is about, so no fact is in both.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Literal

from tinybrain.routing.calibration.questions import Question, Split
from tinybrain.training.chance import rank, stream
from tinybrain.training.data_files import lines, read_data
from tinybrain.training.facts import Fact
from tinybrain.training.knowledge import Knowledge
from tinybrain.training.relations import WordingKind
from tinybrain.training.sums import sums
from tinybrain.training.surfaces import surface
from tinybrain.training.talk import Intent, read_general, read_talk

Kind = Literal["fact", "sum", "talk", "out_of_scope"]
WORDING_KINDS: tuple[WordingKind, ...] = ("trained", "new")
FACTS_OF_A_RELATION = 60
WORDINGS_OF_AN_INTENT = 15
SUMS = 120
LARGEST_OPERAND = 999


def build_questions(knowledge: Knowledge) -> Iterator[Question]:
    """Questions of all kinds about what is taught, and about what is not.

    Of each relation up to 60 taught facts and as many that the model was neither told nor asked,
    each in a trained and in a new wording; sums; each intent of small talk in up to 15 new wordings
    and in a trained one; all prompts that are out of scope.
    """
    for known, by_relation in ((True, knowledge.taught), (False, knowledge.unseen)):
        for facts in by_relation.values():
            for fact in _some(facts, knowledge.seed):
                yield from _about(fact, knowledge, known=known)
    yield from _about_sums(knowledge)
    for intent in read_talk():
        yield from _of_intent(intent, "talk", intent.name, knowledge.seed)
    for intent in read_general():
        yield from _of_intent(intent, "fact", "general", knowledge.seed)
    yield from out_of_scope()


def out_of_scope() -> Iterator[Question]:
    """Prompts that must be handed on; every second of a topic is for calibration."""
    for topic, prompts in read_data("out_of_scope").items():
        for index, prompt in enumerate(lines(prompts)):
            split: Split = "test" if index % 2 else "calibration"
            yield Question(
                text=prompt,
                accepted=(),
                family=topic,
                kind="out_of_scope",
                known=False,
                wording="new",
                split=split,
            )


def _about(fact: Fact, knowledge: Knowledge, *, known: bool) -> Iterator[Question]:
    relation = knowledge.relations[fact.relation]
    for kind in WORDING_KINDS:
        random = stream(knowledge.seed, f"question {kind} {relation.name} {fact.subject}")
        asked = relation.ask(fact, random.choice(relation.wordings.of(kind)))
        yield Question(
            text=surface(asked, random, courtesy=0),
            accepted=fact.accepted,
            family=relation.name,
            kind="fact",
            known=known,
            wording=kind,
            split=_split(knowledge.seed, f"{fact.pool} {fact.key}"),
        )


def _about_sums(knowledge: Knowledge) -> Iterator[Question]:
    """As many sums that were withheld as were not, and as many small as large ones."""
    random = stream(knowledge.seed, "asked sums")
    wordings = knowledge.relations["sum"].wordings
    endless = list(islice(sums(random, largest=LARGEST_OPERAND), 40 * SUMS))
    for known in (True, False):
        for small in (True, False):
            wanted = (
                one
                for one in dict.fromkeys(endless)
                if one.is_withheld(knowledge.seed) != known and one.is_small == small
            )
            for one in islice(wanted, SUMS // 4):
                for kind in WORDING_KINDS:
                    text = random.choice(wordings.of(kind)).format(x=one.asked(random))
                    yield Question(
                        text=surface(text, random, courtesy=0),
                        accepted=(one.value, f"{int(one.value):,}"),
                        family="sum" if small else "large_sum",
                        kind="sum",
                        known=known,
                        wording=kind,
                        split=_split(knowledge.seed, one.expression),
                    )


def _of_intent(intent: Intent, kind: Kind, family: str, seed: int) -> Iterator[Question]:
    random = stream(seed, f"question {intent.name}")
    trained = random.choice(intent.wordings.trained)
    asked: list[tuple[WordingKind, str]] = [("trained", trained)]
    new = sorted(intent.wordings.new, key=lambda wording: rank(seed, f"asked {wording}"))
    asked += [("new", wording) for wording in new[:WORDINGS_OF_AN_INTENT]]
    for wording_kind, wording in asked:
        yield Question(
            text=surface(wording, random, courtesy=0),
            accepted=intent.accepted,
            family=family,
            kind=kind,
            known=True,
            wording=wording_kind,
            split=_split(seed, intent.name if kind == "fact" else f"{intent.name} {wording}"),
        )


def _some(facts: list[Fact], seed: int) -> list[Fact]:
    shuffled = sorted(facts, key=lambda f: rank(seed, f"asked {f.relation} {f.subject}"))
    return shuffled[:FACTS_OF_A_RELATION]


def _split(seed: int, name: str) -> Split:
    return "test" if rank(seed, f"split {name}") % 2 else "calibration"
