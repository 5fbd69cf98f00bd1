"""Definitions from WordNet 3.0, as Debian's wordnet-base and wordnet-sense-index install it.

Source: wndb(5WN) and senseidx(5WN), the formats of data.* and index.sense.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tinybrain.errors import ConfigError
from tinybrain.training.facts import Fact, fact

PARTS_OF_SPEECH: Mapping[str, str] = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
DEFINITIONS = 1_200
DEFINITION_WORDS = range(2, 10)
PLAIN_WORD = re.compile(r"[a-z]{3,11}")
UNFIT = re.compile(r"sex|genital|excre|slur|offensive|obscene|vulgar|drug|kill|prostitut")


@dataclass(frozen=True, slots=True)
class _Sense:
    word: str
    part: str
    offset: str
    count: int


def definition_facts(folder: Path, *, without: Iterable[str]) -> Iterator[Fact]:
    """Short definitions of the most frequent words, except of those `without` which to do.

    Raises:
        ConfigError: WordNet's files are not in the folder.
    """
    glosses, left_out = _read_glosses(folder), set(without)
    written = 0
    for sense in _by_frequency(folder):
        definition = _first_definition(glosses[sense.part, sense.offset])
        if sense.word not in left_out and _is_fit(sense.word, definition):
            yield fact("definition", sense.word, definition)
            written += 1
        if written == DEFINITIONS:
            return


def _by_frequency(folder: Path) -> list[_Sense]:
    """The most frequent sense of each plain word, the most frequent words first."""
    best: dict[str, _Sense] = {}
    totals: dict[str, int] = {}
    for line in _lines(folder / "index.sense"):
        key, offset, _, count = line.split()
        word, rest = key.split("%")
        if not PLAIN_WORD.fullmatch(word):
            continue
        sense = _Sense(word, PARTS_OF_SPEECH[rest[0]], offset, int(count))
        totals[word] = totals.get(word, 0) + sense.count
        if word not in best or sense.count > best[word].count:
            best[word] = sense
    return sorted(best.values(), key=lambda sense: (-totals[sense.word], sense.word))


def _read_glosses(folder: Path) -> dict[tuple[str, str], str]:
    return {
        (part, line.split(" ", 1)[0]): line.split("|", 1)[1].strip()
        for part in sorted(set(PARTS_OF_SPEECH.values()))
        for line in _lines(folder / f"data.{part}")
        if not line.startswith("  ")  # the licence
    }


def _first_definition(gloss: str) -> str:
    """A gloss up to its first semicolon or example, without what stands in brackets."""
    return re.sub(r"\(.*?\) ?", "", re.split(r'[;"]', gloss)[0]).strip(" :,")


def _is_fit(word: str, definition: str) -> bool:
    short = len(definition.split()) in DEFINITION_WORDS
    return short and not UNFIT.search(definition) and not re.search(rf"\b{word}", definition)


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="latin1") as file:
            yield from file
    except OSError as error:
        raise ConfigError(
            f"WordNet's {path.name} is not in {path.parent}. Install Debian's wordnet-base and "
            "wordnet-sense-index, or name the folder that holds their files with --wordnet."
        ) from error
