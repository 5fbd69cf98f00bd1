import time
from dataclasses import replace

import pytest

from tinybrain.engine import precision
from tinybrain.engine.kernels import BF16, FP16, FP32, INT8, by_rows
from tinybrain.engine.native_kernels import NATIVE_INT8
from tinybrain.engine.precision import choose_kind, fastest, works


def broken(*_):
    raise RuntimeError("this torch has no such operator")


def test_the_kernels_of_this_machine_work():
    assert works(FP32)
    assert works(FP16)


def test_a_kernel_that_is_not_there_or_wrong_does_not_work():
    assert not works(replace(FP16, pack=broken))
    assert not works(replace(FP32, prepare=lambda weight: (weight * 1.1,)))


def test_the_fastest_is_measured():
    def slow(weight):
        linear = FP32.pack(weight)
        return lambda x: time.sleep(0.01) or linear(x)

    slowed = replace(FP32, pack=slow)
    assert fastest([slowed, FP32], rows=1, width=32) is FP32
    assert fastest([FP32, slowed], rows=1, width=32) is FP32


def test_fp32_is_the_definition_and_int8_is_int8():
    assert choose_kind("fp32") is FP32
    assert choose_kind("int8") in (NATIVE_INT8, INT8)


def test_prefill_and_decode_each_get_their_own(monkeypatch):
    monkeypatch.setattr(precision, "works", lambda _: True)
    monkeypatch.setattr(precision, "fastest", lambda _, rows: FP16 if rows == 1 else BF16)
    assert choose_kind("16-bit").name == by_rows(FP16, BF16).name


@pytest.mark.parametrize("wanted", ["16-bit", "int8"])
def test_a_machine_without_the_kernels_gets_plain_torch(monkeypatch, wanted):
    monkeypatch.setattr(precision, "works", lambda _: False)
    assert choose_kind(wanted) is FP32
