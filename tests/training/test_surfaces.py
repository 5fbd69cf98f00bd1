from random import Random

import pytest

from tinybrain.training.surfaces import plain, surface


@pytest.fixture
def surfaces():
    random = Random(1)
    return {surface("what is the capital of France", random) for _ in range(400)}


def test_all_surfaces_of_a_wording_are_the_same_plain_text(surfaces):
    assert len(surfaces) > 20
    assert {plain(text) for text in surfaces} == {"what is capital of france"}


def test_an_article_may_be_missing_where_it_says_nothing(surfaces):
    assert {"the capital" in text for text in surfaces} == {True, False}


def test_an_article_that_says_something_stays():
    random = Random(1)
    texts = {surface("what is the sun", random, courtesy=1).lower() for _ in range(50)}
    assert all("the sun" in text for text in texts)


def test_there_are_questions_with_and_without_mark_and_capitals(surfaces):
    assert {text[-1] for text in surfaces} >= {"?", "e"}
    assert any(text.islower() for text in surfaces)
    assert any("France" in text for text in surfaces)


def test_without_courtesy_nothing_is_added():
    random = Random(1)
    texts = {surface("i am tired", random, courtesy=0).strip(".!") for _ in range(50)}
    assert texts == {"i am tired", "I am tired"}
