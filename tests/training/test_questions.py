import re
from collections import Counter

import pytest

from tinybrain.training.questions import WORDINGS_OF_AN_INTENT, build_questions, out_of_scope


def test_out_of_scope_nothing_is_right():
    prompts = list(out_of_scope())
    assert len({p.text for p in prompts}) == len(prompts) >= 400
    assert not any(p.is_answered_by("That is beyond me.") for p in prompts)


def test_half_of_the_prompts_out_of_scope_is_for_tests_only():
    splits = Counter(prompt.split for prompt in out_of_scope())
    assert splits["test"] == pytest.approx(splits["calibration"], abs=6)


def test_there_are_questions_of_every_kind_knowledge_wording_and_split(questions):
    found = Counter((q.kind, q.known, q.wording, q.split) for q in questions)
    for kind in ("fact", "sum"):
        for known in (True, False):
            for wording in ("trained", "new"):
                for split in ("calibration", "test"):
                    assert found[kind, known, wording, split] >= 10
    assert found["talk", True, "new", "test"] + found["talk", True, "new", "calibration"] >= 200


def test_no_intent_outweighs_the_others(questions):
    found = Counter(q.family for q in questions if q.kind == "talk" and q.wording == "new")
    assert max(found.values()) == WORDINGS_OF_AN_INTENT


def test_no_fact_is_in_both_splits(questions):
    splits = {}
    for one in questions:
        if one.family in {"roman", "number_words"}:  # no two of them have one answer
            splits.setdefault(one.accepted, set()).add(one.split)
    assert len(splits) > 100
    assert all(len(found) == 1 for found in splits.values())


def test_they_are_the_same_for_the_same_seed(knowledge, questions):
    assert list(build_questions(knowledge)) == questions


def test_sums_are_known_where_they_were_trained(questions, exchanges):
    withheld = {_expression(q.text) for q in questions if q.kind == "sum" and not q.known}
    trained = {exchange.expression for exchange in exchanges}
    assert len(withheld) > 50
    assert not withheld & trained


def _expression(text):
    signs = {"plus": "+", "minus": "-", "times": "*", "x": "*", "divided by": "//", "/": "//"}
    found = re.search(r"(\d+) ?(\+|-|\*|/|x|plus|minus|times|divided by) ?(\d+)", text.lower())
    left, sign, right = found.groups()
    return f"{left}{signs.get(sign, sign)}{right}"
