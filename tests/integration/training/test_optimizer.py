"""The optimizer: what a step does to a whole model, beside torch's own optimizers."""

import copy
import math

import pytest
import torch

from llama.implementation import Implementation, load
from llama.model.config import LlamaConfig
from llama.model.llama import Llama
from llama.training.optimizer import Optimizer, _orthogonal
from tests.judge.assertions import assert_close
from tests.judge.tolerances import tolerance

LR, DECAY = 0.01, 0.5


IMPLEMENTATIONS = pytest.mark.parametrize("name", ["fused", "vectorized"])
"""One is computed in place, the other by its functions."""


def _models(name="fused"):
    """Two models alike, with gradients that will be clipped."""
    torch.manual_seed(0)
    of = LlamaConfig(vocab_size=7, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, initializer_range=0.5)
    ours = Llama(of, name)
    theirs = copy.deepcopy(ours)
    return ours, theirs


def _send_back(*models):
    for model in models:
        (model(torch.tensor([[1, 2, 3, 6, 0]])) ** 2).sum().backward()


def _groups(model):
    matrices = [p for p in model.parameters() if p.ndim > 1]
    norms = [p for p in model.parameters() if p.ndim == 1]
    return [{"params": matrices, "weight_decay": DECAY}, {"params": norms, "weight_decay": 0.0}]


def _assert_same(ours, theirs, computed_in=torch.float32):
    for (name, parameter), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_close(parameter.detach(), other.detach(), f"the step of {name}", tolerance(computed_in))


@IMPLEMENTATIONS
@pytest.mark.parametrize("max_norm", [1.0, 0.3, 1e9])
def test_three_steps_equal_those_of_torchs_adamw_and_clipping(name, max_norm):
    ours, theirs = _models(name)
    optimizer = Optimizer(ours, betas=(0.9, 0.95), weight_decay=DECAY, max_norm=max_norm)
    reference = torch.optim.AdamW(_groups(theirs), lr=LR, betas=(0.9, 0.95))
    for _ in range(3):
        _send_back(ours, theirs)
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
        assert optimizer.step(LR) == pytest.approx(float(norm), rel=tolerance(torch.float32))
        reference.step()
        reference.zero_grad()
        _assert_same(ours, theirs)


@IMPLEMENTATIONS
def test_muon_moves_the_matrices_within_the_layers_and_adamw_the_rest(name):
    ours, theirs = _models(name)
    optimizer = Optimizer(ours, betas=(0.9, 0.95), weight_decay=DECAY, max_norm=1e9, muon=True)
    inner = [p for name, p in theirs.named_parameters() if p.ndim > 1 and "layers" in name]
    muon = torch.optim.Muon(inner, lr=0.1, weight_decay=DECAY, momentum=0.95)
    groups = _groups(theirs)
    groups[0]["params"] = [theirs.model.embed_tokens.weight, theirs.lm_head.weight]
    reference = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95))
    for _ in range(2):
        _send_back(ours, theirs)
        ours.compute_dtype = torch.bfloat16
        optimizer.step(LR, muon_lr=0.1)
        ours.compute_dtype = None
        for other in (muon, reference):
            other.step()
            other.zero_grad()
        # Both make the step orthogonal in bfloat16, one matrix at a time or several.
        _assert_same(ours, theirs, torch.bfloat16)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_muon_computes_in_the_dtype_that_the_layers_compute_in(monkeypatch, dtype):
    seen = []
    monkeypatch.setattr(
        "llama.training.optimizer._orthogonal", lambda matrices: seen.append(matrices.dtype) or matrices
    )
    ours, _ = _models()
    _send_back(ours)
    ours.compute_dtype = dtype
    Optimizer(ours, muon=True).step(LR, muon_lr=0.1)
    assert set(seen) == {dtype or torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 12), (1, 12, 5)], ids=str)
def test_the_singular_values_of_a_muon_step_lie_between_a_half_and_one_and_a_half(shape, dtype):
    """As Jordan's coefficients promise, in either dtype, for what is not singular."""
    gradients = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    values = torch.linalg.svdvals(_orthogonal(gradients).float())
    assert values.min() > 0.5
    assert values.max() < 1.5


@IMPLEMENTATIONS
def test_gradients_are_gone_after_a_step(name):
    ours, _ = _models(name)
    _send_back(ours)
    Optimizer(ours).step(LR)
    assert all(p.grad is None for p in ours.parameters())


@IMPLEMENTATIONS
def test_a_parameter_that_no_gradient_reaches_is_named(name):
    ours, _ = _models(name)
    _send_back(ours)
    ours.model.norm.weight.grad = None
    with pytest.raises(ValueError, match="no gradient reaches model.norm.weight"):
        Optimizer(ours).step(LR)


def test_weights_stay_float32_while_everything_between_is_bfloat16():
    seen = []

    def swiglu(x, *weights):
        seen.extend(t.dtype for t in (x, *weights))
        return load("vectorized").swiglu(x, *weights)

    torch.manual_seed(0)
    of = LlamaConfig(vocab_size=7, hidden_size=8, num_hidden_layers=2, num_attention_heads=2)
    model = Llama(of, Implementation("mine", {"swiglu": swiglu}))
    exact = model(torch.tensor([[1, 2, 3]])).detach()
    assert set(seen) == {torch.float32}
    seen.clear()
    model.compute_dtype = torch.bfloat16
    logits = model(torch.tensor([[1, 2, 3]]))
    assert set(seen) == {logits.dtype} == {torch.bfloat16}
    assert_close(logits.float(), exact, within=tolerance(torch.bfloat16))
    logits.sum().backward()
    assert {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters()} == {torch.float32}


@IMPLEMENTATIONS
def test_a_gradient_that_is_nan_reaches_every_weight_so_that_no_step_of_it_goes_unseen(name):
    ours, _ = _models(name)
    _send_back(ours)
    ours.model.norm.weight.grad[0] = torch.nan
    assert math.isnan(Optimizer(ours, muon=True).step(LR, muon_lr=0.1))
    assert all(p.isnan().all() for p in ours.parameters())


@IMPLEMENTATIONS
def test_what_muon_moves_is_clipped_with_the_rest(name):
    ours, clipped = _models(name)
    optimizers = Optimizer(ours, max_norm=0.3, muon=True), Optimizer(clipped, max_norm=1e9, muon=True)
    for _ in range(2):  # Muon forgets the length of a single gradient, but not how long one is beside the next
        _send_back(ours, clipped)
        torch.nn.utils.clip_grad_norm_(clipped.parameters(), 0.3)
        for optimizer in optimizers:
            optimizer.step(LR, muon_lr=0.1)
        _assert_same(ours, clipped, torch.bfloat16)


@IMPLEMENTATIONS
def test_weights_that_lie_in_memory_column_by_column_are_moved_like_others(name):
    ours, plain = _models(name)
    for parameter in ours.parameters():
        parameter.data = parameter.data.mT.contiguous().mT if parameter.ndim > 1 else parameter.data
    optimizers = Optimizer(ours), Optimizer(plain)
    for _ in range(2):
        _send_back(ours, plain)
        for optimizer in optimizers:
            optimizer.step(LR)
        _assert_same(ours, plain)


@IMPLEMENTATIONS
def test_a_gradient_that_somebody_holds_is_left_as_it_is(name):
    ours, _ = _models(name)
    _send_back(ours)
    held = ours.model.norm.weight.grad
    before = held.clone()
    Optimizer(ours, max_norm=0.3).step(LR)
    assert torch.equal(held, before)
