import pytest

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
