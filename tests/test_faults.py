"""Faults are told by their place, without the value that has them."""

import pytest
from pydantic import BaseModel, ValidationError

from tinybrain.faults import first_fault


class Tokens(BaseModel):
    ids: list[int]


def fault_of(text):
    with pytest.raises(ValidationError) as caught:
        Tokens.model_validate_json(text)
    return first_fault(caught.value)


def test_the_first_fault_is_told_with_its_place_and_without_the_value():
    where, what = fault_of('{"ids": [1, "secret", "other"]}')
    assert where == "ids.1"
    assert "integer" in what
    assert "secret" not in what


def test_a_fault_of_the_whole_has_no_place():
    where, what = fault_of("no JSON")
    assert where == ""
    assert "Invalid JSON" in what
