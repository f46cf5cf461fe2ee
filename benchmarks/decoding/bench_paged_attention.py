"""Paged attention: each key and value is read once. Beside it attention over caches that lie in order already."""

import torch.nn.functional as F

from benchmarks.cases import layer
from tests.cases.calls import positional
from tests.cases.target import tensor

PAGE_SIZE = 16


def arguments(case):
    """Sequences of one length, whose pages lie anywhere."""
    table = case.permutation(case.batch * case.seq // PAGE_SIZE).view(case.batch, -1)
    shape = (table.numel(), case.n_kv_heads, PAGE_SIZE, case.head_dim)
    q = case.normal("batch n_heads head_dim")
    return positional(q, case.normal(shape), case.normal(shape), table, tensor([case.seq] * case.batch))


def torch_nn(q, key_pages, value_pages, page_table, lengths):
    keys, values = (of[page_table].transpose(1, 2).flatten(2, 3) for of in (key_pages, value_pages))
    return lambda: F.scaled_dot_product_attention(q[:, :, None], keys, values, enable_gqa=True)[:, :, 0]


bench_paged_attention = layer(
    "paged_attention",
    along="seq",
    sizes=(64, 512, 2048, 8192),
    others={"batch": 4, "n_kv_heads": 2, "groups": 2, "half": 32},
    moved=lambda c: 2 * c.batch * c.n_kv_heads * c.seq * c.head_dim,
    naive=64,
    arguments=arguments,
    peers={"torch.nn": torch_nn},
)
