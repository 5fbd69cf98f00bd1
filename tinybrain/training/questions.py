"""Questions with what counts as a right answer: for evaluation, calibration and benchmarks.

Knows nothing of models, and needs no torch. A question's `split` depends on what it is about, so
no fact is in both.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from tinybrain.training.chance import rank, stream
from tinybrain.training.data_files import lines, read_data
from tinybrain.training.facts import Fact
from tinybrain.training.knowledge import Knowledge
from tinybrain.training.relations import WordingKind
from tinybrain.training.sums import sums
from tinybrain.training.surfaces import surface
from tinybrain.training.talk import Intent, read_general, read_talk

Kind = Literal["fact", "sum", "talk", "out_of_scope"]
Split = Literal["calibration", "test"]
WORDING_KINDS: tuple[WordingKind, ...] = ("trained", "new")
FACTS_OF_A_RELATION = 30
SUMS = 120
LARGEST_OPERAND = 999


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt of one message. `accepted` is empty where no answer of a small model is right.

    `family` is its relation, intent or topic. `known`: the answer was in the training text.
    Where it was not, the question was not, either.
    """

    text: str
    accepted: tuple[str, ...]
    family: str
    kind: Kind
    known: bool
    wording: WordingKind
    split: Split

    def is_answered_by(self, answer: str) -> bool:
        """Whether an accepted answer stands in it, as whole words.

        Case counts for one or two letters with a capital, such as the symbols of elements.
        """
        return any(_contains(answer, accepted) for accepted in self.accepted)


def write_questions(questions: Iterable[Question], path: Path) -> None:
    """Write them as JSON, one a line."""
    text = "".join(json.dumps(asdict(q), ensure_ascii=False) + "\n" for q in questions)
    path.write_text(text, encoding="utf-8")


def read_questions(path: Path) -> list[Question]:
    """Read what `write_questions` wrote."""
    documents = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Question(**{**d, "accepted": tuple(d["accepted"])}) for d in documents]


def build_questions(knowledge: Knowledge) -> Iterator[Question]:
    """Questions of all kinds about what is taught, and about what is not.

    Of each relation up to 30 taught facts and as many that the model has never met, each in a trained
    and in a new wording; sums; all small talk in new wordings, and each intent in a trained one; all prompts
    that are out of scope.
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
                prompt, (), topic, "out_of_scope", known=False, wording="new", split=split
            )


def _about(fact: Fact, knowledge: Knowledge, *, known: bool) -> Iterator[Question]:
    relation = knowledge.relations[fact.relation]
    for kind in WORDING_KINDS:
        random = stream(knowledge.seed, f"question {kind} {relation.name} {fact.subject}")
        asked = relation.ask(fact, random.choice(relation.wordings.of(kind)))
        yield Question(
            surface(asked, random, courtesy=0),
            fact.accepted,
            relation.name,
            "fact",
            known,
            kind,
            _split(knowledge.seed, f"{fact.pool} {fact.key}"),
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
                value = one.value
                split = _split(knowledge.seed, one.expression)
                family = "sum" if small else "large_sum"
                for kind in WORDING_KINDS:
                    text = random.choice(wordings.of(kind)).format(x=one.asked(random))
                    asked = surface(text, random, courtesy=0)
                    accepted = (value, f"{int(value):,}")
                    yield Question(asked, accepted, family, "sum", known, kind, split)


def _of_intent(intent: Intent, kind: Kind, family: str, seed: int) -> Iterator[Question]:
    random = stream(seed, f"question {intent.name}")
    trained = random.choice(intent.wordings.trained)
    asked: list[tuple[WordingKind, str]] = [("trained", trained)]
    asked += [("new", wording) for wording in intent.wordings.new]
    for wording_kind, wording in asked:
        text = surface(wording, random, courtesy=0)
        split = _split(seed, f"{intent.name} {wording}")
        yield Question(text, intent.accepted, family, kind, True, wording_kind, split)


def _some(facts: list[Fact], seed: int) -> list[Fact]:
    shuffled = sorted(facts, key=lambda f: rank(seed, f"asked {f.relation} {f.subject}"))
    return shuffled[:FACTS_OF_A_RELATION]


def _split(seed: int, name: str) -> Split:
    return "test" if rank(seed, f"split {name}") % 2 else "calibration"


def _contains(answer: str, accepted: str) -> bool:
    answer, accepted = _bare(answer), _bare(accepted)
    if len(accepted) > 2 or accepted.islower():  # noqa: PLR2004
        answer, accepted = answer.lower(), accepted.lower()
    return re.search(rf"(?<!\w){re.escape(accepted)}(?!\w)", answer) is not None


def _bare(text: str) -> str:
    """Without the marks that sentences and clauses end with."""
    return " ".join(re.sub(r"(?<=\d),(?=\d)|[.,;:!?\"]+(?=\s|$)", "", text).split())
