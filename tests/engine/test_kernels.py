import pytest
import torch
from torch.nn import functional

from tinybrain.engine.gpt import rms_norm
from tinybrain.engine.kernels import BF16, FP16, FP32, INT8, MANY_ROWS, by_rows, quantise
from tinybrain.engine.native_kernels import NATIVE_HALF, NATIVE_INT8
from tinybrain.engine.precision import works

EXACTNESS = {FP32: 1e-6, FP16: 1e-3, NATIVE_HALF: 1e-3, BF16: 1e-2, INT8: 3e-2, NATIVE_INT8: 3e-2}
INDEPENDENT = (FP16, INT8, NATIVE_HALF, NATIVE_INT8)

pytestmark = pytest.mark.usefixtures("several_threads")


@pytest.fixture(autouse=True)
def only_what_is_there(request):
    kind = request.node.callspec.params.get("kind") if hasattr(request.node, "callspec") else None
    if kind and not works(kind):
        pytest.skip(f"this machine has no kernel for {kind.name}")


@pytest.fixture
def weight():
    return torch.randn(300, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def rows():
    """Rows of very different sizes, as a residual stream has them."""
    x = torch.randn(40, 64, generator=torch.Generator().manual_seed(2))
    return x * torch.logspace(-3, 3, 40)[:, None]


@pytest.mark.parametrize("kind", EXACTNESS, ids=lambda kind: kind.name)
def test_every_row_is_the_product_as_exactly_as_its_type_allows(kind, weight, rows):
    found = kind.pack(*kind.prepare(weight))(rows)
    expected = functional.linear(rows, weight)
    errors = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert errors.max() < EXACTNESS[kind]
    assert found.dtype == torch.float32


@pytest.mark.parametrize("kind", INDEPENDENT, ids=lambda kind: kind.name)
def test_a_row_does_not_depend_on_its_neighbours(kind, weight, rows):
    linear = kind.pack(*kind.prepare(weight))
    together = linear(rows)
    assert all(torch.equal(linear(rows[i : i + 1]), together[i : i + 1]) for i in range(len(rows)))


@pytest.mark.parametrize("kind", EXACTNESS, ids=lambda kind: kind.name)
def test_what_comes_before_and_after_a_product(kind, weight, rows):
    linear = kind.pack(*kind.prepare(weight))
    add = torch.randn(40, 300, generator=torch.Generator().manual_seed(3))
    found = linear(rows, norm=True, squared_relu=True, cap=15, add=add)
    product = functional.linear(rms_norm(rows), weight)
    expected = 15 * torch.tanh(product.relu().square() / 15) + add
    assert (found - expected).norm() < 3 * EXACTNESS[kind] * (expected - add).norm()
    # A squared ReLU and a cap hide what is negative or large.
    normed = linear(rows, norm=True)
    assert (normed - product).norm() < EXACTNESS[kind] * product.norm()
    assert linear(rows, squared_relu=True).equal(linear(rows).relu().square())


@pytest.mark.parametrize("kind", EXACTNESS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("shape", [(1, 1), (65, 3), (63, 17), (130, 100)])
def test_weights_of_any_shape(kind, shape):
    generator = torch.Generator().manual_seed(4)
    weight, x = (
        torch.randn(*shape, generator=generator),
        torch.randn(7, shape[1], generator=generator),
    )
    expected = functional.linear(x, weight)
    found = kind.pack(*kind.prepare(weight))(x)
    assert (found - expected).norm() <= EXACTNESS[kind] * expected.norm()


@pytest.mark.parametrize("kind", EXACTNESS, ids=lambda kind: kind.name)
def test_likelihoods_are_those_of_its_capped_products(kind, weight, rows):
    linear = kind.pack(*kind.prepare(weight))
    ids = torch.arange(40) * 7
    expected = functional.cross_entropy(linear(rows, cap=20), ids, reduction="none")
    torch.testing.assert_close(linear.nll(rows, ids, cap=20), expected, atol=2e-5, rtol=1e-6)


@pytest.mark.parametrize("kind", EXACTNESS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_what_is_no_number_stays_none(kind, weight, rows, wrong):
    linear, sound = kind.pack(*kind.prepare(weight)), torch.arange(40) != 7
    rows[7, 3] = wrong
    for found in (linear(rows), linear(rows, norm=True, squared_relu=True)):
        assert not found[7].isfinite().all()
        assert found[sound].isfinite().all()
    nll = linear.nll(rows, torch.zeros(40, dtype=torch.long), cap=15)
    assert nll[sound].isfinite().all()
    assert nll[7].isnan() or wrong == torch.inf  # of which a cap makes 15


@pytest.mark.parametrize("kind", EXACTNESS, ids=lambda kind: kind.name)
def test_leading_dimensions_stay_and_a_row_of_zeros_gives_zeros(kind, weight):
    linear = kind.pack(*kind.prepare(weight))
    assert linear(torch.zeros(2, 3, 64)).equal(torch.zeros(2, 3, 300))


def test_what_is_never_negative_has_twice_the_levels(weight):
    if not works(NATIVE_INT8):
        pytest.skip("this machine has no kernel for int8-native")
    linear = NATIVE_INT8.pack(*NATIVE_INT8.prepare(weight.sign()))  # of which int8 loses nothing
    x = torch.rand(40, 64, generator=torch.Generator().manual_seed(5))
    signed = x * (torch.arange(64) % 2 * 2 - 1)
    errors = [
        (linear(rows) - functional.linear(rows, weight.sign())).norm() for rows in (x, signed)
    ]
    assert errors[0] < 0.6 * errors[1]


@pytest.mark.parametrize("wrong", [torch.zeros(40, 63), torch.zeros(40, 64, dtype=torch.float64)])
def test_our_own_refuse_what_they_would_misread(weight, wrong):
    if not works(NATIVE_HALF):
        pytest.skip("this machine has no kernel for fp16-native")
    linear = NATIVE_HALF.pack(*NATIVE_HALF.prepare(weight))
    with pytest.raises(ValueError, match="64 floats a row"):
        linear(wrong)


def test_a_row_of_zeros_in_a_weight_is_quantised_to_zeros(weight):
    weight[5] = 0
    levels, scales = quantise(weight)
    assert levels.dtype == torch.int8
    assert (levels[5] == 0).all()
    torch.testing.assert_close(levels * scales[:, None], weight, atol=0.02, rtol=0)


def test_many_rows_take_the_other_kernel(weight, rows):
    both = by_rows(FP32, INT8)
    linear = both.pack(*both.prepare(weight))
    few, many = rows[: MANY_ROWS - 1], rows[:MANY_ROWS]
    assert linear(few).equal(FP32.pack(*FP32.prepare(weight))(few))
    assert linear(many).equal(INT8.pack(*INT8.prepare(weight))(many))
    assert both.name == "fp32+int8"
