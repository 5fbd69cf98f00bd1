"""Faults are told with their place."""

import pytest
from pydantic import BaseModel, ValidationError

from tinybrain.faults import first_fault


class Tokens(BaseModel):
    ids: list[int]


def fault_of(text):
    with pytest.raises(ValidationError) as caught:
        Tokens.model_validate_json(text)
    return first_fault(caught.value)


def test_the_first_fault_is_told_with_its_place():
    where, what = fault_of('{"ids": [1, "two", 3.5]}')
    assert where == "ids.1"
    assert "integer" in what


def test_a_fault_of_the_whole_has_no_place():
    where, what = fault_of("no JSON")
    assert where == ""
    assert "Invalid JSON" in what
