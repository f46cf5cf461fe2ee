"""What defines self-attention, whatever the sizes. every_layer/ compares it with the naive one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.calls import arguments, drawn
from tests.cases.case import Case
from tests.cases.sizes import small
from tests.judge.assertions import assert_close, assert_equals_formula, assert_identical
from tests.judge.subject import REFERENCE, exact
from tests.judge.tolerances import angle_tolerance


def _arguments(case):
    """Typical arguments, apart from positions and frequencies. Angles stay small: float32 is exact enough for them."""
    (*rest, positions, frequencies), _ = arguments("self_attention", case)
    return rest, positions % 8, frequencies


@pytest.mark.exact
@given(case=drawn("self_attention"))
def test_it_is_projections_heads_rope_attention_and_merge_written_out(self_attention, case):
    rest, *turns = _arguments(case)
    x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies = exact((*rest, *turns))
    d = case.head_dim
    merged = np.zeros((case.batch, case.seq, n_heads * d))
    for h in range(n_heads):
        kv = h // (n_heads // n_kv_heads)
        # Head h is the rows from h · head_dim; rope on q and k, not on v.
        q = (x @ w_q[h * d : (h + 1) * d].T)[:, None]
        k = (x @ w_k[kv * d : (kv + 1) * d].T)[:, None]
        v = (x @ w_v[kv * d : (kv + 1) * d].T)[:, None]
        q, k = REFERENCE.rope(q, positions, frequencies), REFERENCE.rope(k, positions, frequencies)
        merged[:, :, h * d : (h + 1) * d] = REFERENCE.attention(q, k, v)[:, 0].numpy()
    expected = torch.from_numpy(merged) @ w_o.T
    assert_close(self_attention(*rest, *turns), expected, within=angle_tolerance(positions), dtype=case.dtype)


@given(case=drawn("self_attention", seq=(2, 7)), data=st.data())
def test_a_later_token_has_no_influence_to_the_last_bit(self_attention, case, data):
    (x, *rest), _ = arguments("self_attention", case)
    kept = data.draw(st.integers(1, case.seq - 1), label="positions kept")
    changed = x.clone()
    changed[:, kept:] += 10
    assert_identical(self_attention(changed, *rest)[:, :kept], self_attention(x, *rest)[:, :kept], "the causal mask")


@pytest.mark.exact
@given(case=drawn("self_attention"), shift=st.integers(1, 8))
def test_shifting_all_positions_changes_nothing(self_attention, case, shift):
    rest, positions, frequencies = _arguments(case)
    shifted, within = self_attention(*rest, positions + shift, frequencies), angle_tolerance(positions + shift)
    assert_close(shifted, self_attention(*rest, positions, frequencies), "rope on both q and k", within=within)


@given(case=drawn("self_attention", seq=(2, 7)))
def test_positions_matter(self_attention, case):
    rest, positions, frequencies = _arguments(case)
    in_order = torch.arange(case.seq, device=positions.device)
    near, far = (self_attention(*rest, in_order * apart, frequencies) for apart in (1, 3))
    assert not torch.equal(near, far)


@given(case=drawn("self_attention"))
def test_positions_for_each_sequence_are_those_of_each_sequence_alone(self_attention, case):
    (x, *rest), _, frequencies = _arguments(case)
    at = case.integers("batch seq", 8)
    alone = [self_attention(x[b : b + 1], *rest, at[b], frequencies) for b in range(case.batch)]
    assert_close(self_attention(x, *rest, at, frequencies), torch.cat(alone))


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_far_positions_are_told_apart_in_half_precision(self_attention, dtype):
    # bfloat16 counts 1000, 1004, 1008; and float16 counts 4096, 4100, 4104.
    for seed in range(4):
        args, kwargs = arguments("self_attention", Case(small("self_attention"), dtype, seed))
        x, positions = 2 * args[0], args[7] + 4097
        args = (x, *args[1:7], positions, *args[8:])
        assert_equals_formula(self_attention, *args, look_at="positions or angles in the dtype of x", **kwargs)
