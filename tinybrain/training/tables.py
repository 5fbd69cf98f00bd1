"""Facts from the project's own tables."""

from collections.abc import Iterator
from dataclasses import replace

from tinybrain.training.data_files import lines, read_data
from tinybrain.training.english import spellings, with_article
from tinybrain.training.facts import Fact, fact


def table_facts() -> Iterator[Fact]:
    """The facts of tables.yaml and kinds.yaml."""
    for relation in read_data("tables"):
        yield from _of_table(relation)
    yield from _turned_opposites()
    yield from kind_facts()


def kind_facts() -> Iterator[Fact]:
    """What things are; an = before a kind says that its examples take no article."""
    for entry, examples in read_data("kinds").items():
        kind = entry.removeprefix("=")
        familiar = examples.split(" | ")[0].split()
        for example in examples.replace("|", "").split():
            a = example if entry.startswith("=") else with_article(example)
            yield fact(
                "kind", example, with_article(kind), kind, well_known=example in familiar, a=a
            )


def _of_table(relation: str) -> Iterator[Fact]:
    familiar, rest = read_data("tables")[relation].split("\n\n")
    for block, well_known in ((familiar, True), (rest, False)):
        for line in lines(block):
            yield _of_line(relation, line, well_known=well_known)


def _of_line(relation: str, line: str, *, well_known: bool) -> Fact:
    subject, answers = line.split(": ")
    answer, *others = answers.split(" | ")
    others += spellings(answer)
    mass = subject.startswith("=")
    subject = subject.removeprefix("=")
    parts = {"a": subject if mass else with_article(subject)}
    if " / " in subject:
        part, whole = subject.split(" / ")
        subject, parts = f"{part} in {whole}", {"part": part, "whole": whole}
    key = " ".join(sorted((subject, answer))) if relation == "opposite" else subject
    if answer.startswith(("a ", "an ")):
        others.append(answer.split(" ", 1)[1])
    return fact(relation, subject, answer, *others, well_known=well_known, key=key, **parts)


def _turned_opposites() -> Iterator[Fact]:
    """Small is the opposite of big, too; but a word has one opposite here, the first told."""
    seen = {one.subject for one in _of_table("opposite")}
    for one in _of_table("opposite"):
        if one.answer not in seen:
            seen.add(one.answer)
            parts = {"a": with_article(one.answer)}
            yield replace(
                one, subject=one.answer, answer=one.subject, accepted=(one.subject,), parts=parts
            )
