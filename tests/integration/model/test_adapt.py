"""Adapters: what they make of modules and kernels of other conventions is the layer, in its values and gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from llama import adapt
from llama.implementation import Claims, Implementation
from tests.cases import target
from tests.cases.calls import arguments, calls_of, drawn
from tests.judge.assertions import assert_equals_formula
from tests.judge.gradients import assert_gradients_equal_the_formula
from tests.judge.subject import Subject


class Norm(nn.Module):
    """With its eps under another name, and no place for it in the constructor."""

    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.variance_epsilon = 1e-6

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, self.variance_epsilon)


class FeedForward(nn.Module):
    """As in Meta's llama, where w2 is the last matrix."""

    def __init__(self, dim, hidden):
        super().__init__()
        self.w1, self.w2 = nn.Linear(dim, hidden, bias=False), nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Gated(nn.Module):
    """With a config, and all in the order of nobody."""

    def __init__(self, config):
        super().__init__()
        self.c = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.a = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.b = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)

    def forward(self, x):
        return self.c(F.silu(self.a(x)) * self.b(x))


def by_neighbours(x, cos, sin):
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def by_halves(x, cos, sin):
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def of_queries_and_keys(q, k, cos, sin):
    return by_halves(q, cos[:, None], sin[:, None]), by_halves(k, cos[:, None], sin[:, None])


def by_seq(x, positions, frequencies):
    """Over [batch seq heads head_dim]."""
    angles = (positions[..., None] * frequencies)[..., None, :]
    return by_neighbours(x, *(t.to(x.dtype) for t in (angles.cos(), angles.sin())))


def upper_left(q, k, v, causal):
    """Over [batch seq heads head_dim], with as many heads in each."""
    assert q.shape[2] == k.shape[2]
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2)


ADAPTED = {
    "nn.RMSNorm": ("rms_norm", adapt.module(nn.RMSNorm)),
    "Norm": ("rms_norm", adapt.module(Norm)),
    "nn.Linear": ("linear", adapt.module(nn.Linear)),
    "nn.Embedding": ("embedding", adapt.module(nn.Embedding)),
    "FeedForward": ("swiglu", adapt.module(FeedForward)),
    "Gated": ("swiglu", adapt.module(Gated, ["a.weight", "b.weight", "c.weight"])),
    "sdpa": ("attention", adapt.sdpa(F.scaled_dot_product_attention)),
    "upper_left": ("attention", adapt.upper_left(adapt.repeat_heads(adapt.seq_before_heads(upper_left)))),
    "cos_sin": ("rope", adapt.cos_sin(by_halves)),
    "interleaved": ("rope", adapt.cos_sin(adapt.interleaved(by_neighbours), full=False)),
    "seq_before_heads": ("rope", adapt.seq_before_heads(adapt.interleaved(by_seq))),
    "apply_rotary_pos_emb": ("rope", adapt.apply_rotary_pos_emb(of_queries_and_keys)),
}


@pytest.mark.parametrize("name", ADAPTED)
@given(data=st.data())
def test_what_is_adapted_has_the_values_and_gradients_of_the_layer(name, data):
    of, function = ADAPTED[name]
    if name == "upper_left":
        target.use_claims(Claims.parse("no mask"))
    args, kwargs = arguments(of, data.draw(drawn(of, target.ALL, layouts=True)))
    subject = Subject(of, Implementation("adapted", {of: function}))
    assert_equals_formula(subject, *args, **kwargs)
    assert calls_of(of).gradients
    assert_gradients_equal_the_formula(subject, (args, kwargs))


def test_memory_that_is_not_contiguous_is_handed_on_as_it_is():
    seen = []
    layer = adapt.seq_before_heads(lambda x: seen.append(x.is_contiguous()) or x)
    x = torch.ones(2, 3, 4, 5)
    layer(x)
    layer(x.mT)
    assert seen == [True, False]


def test_an_instance_has_one_size_and_its_class_is_asked_for():
    with pytest.raises(TypeError, match=r"got an instance of Linear, which has one size: adapt.module\(Linear\)"):
        adapt.module(nn.Linear(2, 3))


def test_a_module_with_other_parameters_than_the_layer_has_weights_is_refused_with_their_names():
    with pytest.raises(TypeError, match="LayerNorm has weight, bias; give 1 names"):
        adapt.module(nn.LayerNorm)(torch.ones(2, 3), torch.ones(3))


def test_a_norm_that_knows_no_eps_is_refused():
    with pytest.raises(TypeError, match="PReLU has none of eps, epsilon, variance_epsilon, norm_eps"):
        adapt.module(nn.PReLU)(torch.ones(2, 3), torch.ones(3), 1e-3)
