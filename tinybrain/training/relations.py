"""Relations: what can be asked about a subject, in which words, and how it is answered.

Every fourth wording is never trained. It stands for all the ways to ask that nobody thought of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tinybrain.training.data_files import lines, read_data
from tinybrain.training.english import capitalised
from tinybrain.training.facts import Fact
from tinybrain.training.surfaces import plain

FILES = ("relations_world", "relations_words", "relations_order")
NEW_EVERY = 4

WordingKind = Literal["trained", "new"]


@dataclass(frozen=True, slots=True)
class Wordings:
    """Ways to say one thing; `new` are those that are never trained."""

    trained: tuple[str, ...]
    new: tuple[str, ...]

    @classmethod
    def split(cls, wordings: Sequence[str]) -> "Wordings":
        """Take every fourth as new, unless it only adds a courtesy to one of the others."""
        fourth = wordings[NEW_EVERY - 1 :: NEW_EVERY]
        others = {plain(wording) for wording in wordings if wording not in fourth}
        new = tuple(wording for wording in fourth if plain(wording) not in others)
        return cls(tuple(wording for wording in wordings if wording not in new), new)

    def of(self, kind: WordingKind) -> tuple[str, ...]:
        """The trained or the new ones."""
        return self.trained if kind == "trained" else self.new


@dataclass(frozen=True, slots=True)
class Relation:
    """A kind of question; `complete` means that none of its facts is withheld."""

    name: str
    reply_template: str
    wordings: Wordings
    complete: bool

    def reply(self, fact: Fact) -> str:
        """The answer first, as a sentence."""
        return capitalised(self.reply_template.format(**fact.fields))

    def ask(self, fact: Fact, wording: str) -> str:
        """The wording with the fact's subject in it."""
        return wording.format(**fact.fields)


def read_relations() -> Mapping[str, Relation]:
    """All relations by name."""
    return {
        name: Relation(
            name,
            entry["reply"],
            Wordings.split(lines(entry["wordings"])),
            entry.get("complete", False),
        )
        for file in FILES
        for name, entry in read_data(file).items()
    }
