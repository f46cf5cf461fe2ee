"""A matrix times one vector: however the matrix is held, the product is that of the weights that it holds."""

import pytest
import torch

from llama.model import products
from llama.model.products import HalfProduct, Product, RowsProduct, product_of
from llama.model.quantized import Quantized, group_of
from tests.judge.assertions import assert_close
from tests.judge.tolerances import tolerance

D_OUT, D_IN = 24, 192


def _weight(kind):
    torch.manual_seed(1)
    weight = torch.randn(D_OUT, D_IN)
    if kind == "float32":
        return weight, weight
    if kind == "bfloat16":
        return weight.bfloat16(), weight.bfloat16()
    limit, groups = 2 ** (kind - 1) - 1, D_IN // group_of(D_IN, kind)
    codes = torch.randint(-limit, limit + 1, (D_OUT, D_IN), dtype=torch.int8)
    of = Quantized(codes, torch.rand(D_OUT, groups), kind)
    return of.stand_in(), of.dequantized()


@pytest.mark.parametrize(
    ("kind", "half", "expected"),
    [("float32", False, Product), ("bfloat16", True, HalfProduct), (8, False, Product), (4, False, Product)],
)
def test_codes_are_the_weights_that_they_mean(kind, half, expected, monkeypatch):
    monkeypatch.setattr(products, "SMALL", 0)
    held, weight = _weight(kind)
    product = product_of([held], None, torch.float32, half)
    assert isinstance(product, expected)
    x, out = torch.randn(D_IN), torch.zeros(D_OUT)
    product(x, 1.0, out)
    assert_close(
        out,
        weight.double() @ x.double(),
        dtype=torch.float32,
        within=tolerance(torch.bfloat16 if half else torch.float32),
    )


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("rows", [0, 1, 5, 40])
@pytest.mark.parametrize("large", [0, products.LARGE], ids=["large", "small"])
def test_some_rows_at_a_time_have_the_same_product(kind, rows, large, monkeypatch):
    monkeypatch.setattr(products, "LARGE", large)
    monkeypatch.setattr(products, "SMALL", 0)
    wide = torch.float64 if kind == "float64" else torch.float32
    weight, _ = _weight("bfloat16" if kind == "bfloat16" else "float32")
    product = RowsProduct([weight, weight], wide, half=kind == "bfloat16")
    if kind != "bfloat16":
        assert product.in_blocks == (large == 0 and kind == "float32" and torch.backends.mkldnn.is_available())
    x = torch.randn(rows, D_IN, dtype=wide)
    expected = (x.double() @ weight.double().T).repeat(1, 2)
    assert_close(product(x), expected, dtype=wide, within=tolerance(torch.bfloat16 if kind == "bfloat16" else wide))


def test_without_onednn_the_product_is_the_same(monkeypatch):
    monkeypatch.setattr(products, "LARGE", 0)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    weight, x = _weight("float32")[0], torch.randn(3, D_IN)
    product = RowsProduct([weight], torch.float32)
    assert not product.in_blocks
    assert_close(product(x), x @ weight.T)


@pytest.mark.parametrize("d_in", [1, 7, 64, 172, 768, 2048, 11008])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_group_divides_the_inputs_and_fills_words_where_it_can(d_in, bits):
    group, parts = group_of(d_in, bits), 32 // bits
    assert 1 <= group <= 64
    assert d_in % group == 0
    assert d_in % parts or group % parts == 0
