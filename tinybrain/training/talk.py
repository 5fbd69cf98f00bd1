"""Small talk, single questions of general knowledge, and jokes: fixed replies to many wordings."""

from collections.abc import Iterator
from dataclasses import dataclass

from tinybrain.training.data_files import lines, read_data
from tinybrain.training.relations import Wordings


@dataclass(frozen=True, slots=True)
class Intent:
    """Something said, the reply to it, and what a right answer contains (one of `accepted`)."""

    name: str
    wordings: Wordings
    reply: str
    accepted: tuple[str, ...]


def read_talk() -> Iterator[Intent]:
    """Small talk; the replies of related intents are accepted, too."""
    entries = read_data("talk")
    for name, entry in entries.items():
        related = (entries[other]["reply"] for other in entry.get("accept", ()))
        wordings = Wordings.split(lines(entry["wordings"]))
        yield Intent(name, wordings, entry["reply"], (entry["reply"], *related))


def read_general() -> Iterator[Intent]:
    """Single questions of general knowledge."""
    for name, entry in read_data("general").items():
        accepted = tuple(entry["key"].split(" | "))
        yield Intent(name, Wordings.split(lines(entry["wordings"])), entry["reply"], accepted)


def read_jokes() -> Iterator[Intent]:
    """Jokes, each asked for by what it is about."""
    wordings = lines(read_data("dialogues")["joke_about"]["wordings"])
    for topic, joke in read_data("jokes").items():
        asked = Wordings.split([wording.format(x=topic) for wording in wordings])
        yield Intent(topic, asked, joke, (joke,))
