from pathlib import Path

import pytest

from tinybrain.engine.tokenizer import Tokenizer
from tinybrain.engine.tokenizer_file import read_tokenizer
from tinybrain.training.corpus import Mixture, build_corpus
from tinybrain.training.knowledge import Knowledge, own_facts
from tinybrain.training.questions import build_questions

SMALL = Mixture(scale=0.05)


@pytest.fixture(scope="session")
def knowledge():
    """What is taught and withheld of the facts that need no package."""
    return Knowledge(own_facts(), seed=1)


@pytest.fixture(scope="session")
def corpus(knowledge):
    return build_corpus(knowledge, SMALL)


@pytest.fixture(scope="session")
def exchanges(corpus):
    return [exchange for conversation in corpus for exchange in conversation]


@pytest.fixture(scope="session")
def questions(knowledge):
    return list(build_questions(knowledge))


@pytest.fixture(scope="session")
def tokenizer_table():
    """A small tokenizer, as the engine's tests have it."""
    return read_tokenizer(Path(__file__).parents[1] / "engine/data/tokenizer/tokenizer.pkl")


@pytest.fixture(scope="session")
def tokenizer(tokenizer_table):
    return Tokenizer(tokenizer_table)
