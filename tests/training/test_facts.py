from collections import Counter

import pytest

from tinybrain.training.facts import fact, withheld_keys
from tinybrain.training.knowledge import Knowledge, own_facts

FACTS = [fact("colour", str(number), "red", well_known=number < 20) for number in range(60)]


def test_a_third_of_each_relation_is_withheld_unless_it_is_complete(knowledge):
    for name, relation in knowledge.relations.items():
        taught, withheld = (len(by[name]) for by in (knowledge.taught, knowledge.withheld))
        if relation.complete:
            assert withheld == 0
        elif taught:
            assert withheld / (taught + withheld) == pytest.approx(1 / 3, abs=0.04), name


def test_what_is_well_known_is_never_withheld():
    withheld = withheld_keys(FACTS, complete=(), seed=3)
    assert len(withheld) == 20
    assert not withheld & {("colour", str(number)) for number in range(20)}


def test_what_is_withheld_depends_on_the_seed_alone():
    first, again, other = (
        withheld_keys(facts, complete=(), seed=seed)
        for facts, seed in ((FACTS, 1), (FACTS[::-1], 1), (FACTS, 2))
    )
    assert first == again != other


def test_both_directions_of_a_fact_are_withheld_together():
    there = fact("capital", "France", "Paris", pool="capital", key="France")
    back = fact("country_of_capital", "Paris", "France", pool="capital", key="France")
    others = [fact("capital", str(n), str(-n), pool="capital") for n in range(30)]
    for seed in range(8):
        knowledge = Knowledge([there, back, *others], seed=seed)
        assert knowledge.withholds(there) == knowledge.withholds(back)


def test_opposites_are_withheld_in_both_directions(knowledge):
    withheld = {(f.subject, f.answer) for f in knowledge.withheld["opposite"]}
    taught = {(f.answer, f.subject) for f in knowledge.taught["opposite"]}
    assert not withheld & taught


def test_no_subject_has_two_answers_in_one_relation():
    several = Counter((f.relation, f.subject) for f in own_facts())
    assert [subject for subject, count in several.items() if count > 1] == []
