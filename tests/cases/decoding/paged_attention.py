"""How paged_attention is called."""

import math

import torch

from tests.cases import target
from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case

PAGE_SIZES = (4, 1, 3, 16)
SPARE = 16
"""Positions for which there are pages in the table beyond the longest length."""


def arguments(case: Case) -> Arguments:
    """Sequences of 0 to kv_len positions, over pages in any order, the first of which all share."""
    page_size = PAGE_SIZES[case.seed % len(PAGE_SIZES)]
    of_sequence = math.ceil((case.kv_len + SPARE) / page_size)
    n_pages = 1 + case.batch * of_sequence
    q = case.normal("batch n_heads head_dim")
    shape = (n_pages, case.n_kv_heads, page_size, case.head_dim)
    key_pages, value_pages = case.normal(shape), case.normal(shape)
    table = 1 + case.permutation(n_pages - 1).view(case.batch, of_sequence)
    table[:, 0] = 0
    lengths = case.integers("batch", case.kv_len + 1)
    return positional(q, key_pages, value_pages, case.laid_out(table), lengths)


def with_garbage(case: Case, garbage: float = math.nan) -> Arguments:
    """The same, with garbage in each slot and a number that is no page in each entry of the table beyond the
    lengths."""
    (q, key_pages, value_pages, table, lengths), kwargs = arguments(case)
    key_pages, value_pages, table = (t.clone() for t in (key_pages, value_pages, table))
    page_size = key_pages.shape[2]
    positions = torch.arange(table.shape[1] * page_size, device=target.DEVICE)
    held = positions < lengths[:, None]
    read = torch.zeros(key_pages.shape[0], page_size, dtype=torch.bool, device=target.DEVICE)
    pages = table[:, positions // page_size]
    read[pages[held], (positions % page_size).expand_as(pages)[held]] = True
    for of in (key_pages, value_pages):
        of.transpose(1, 2)[~read] = garbage
    table[~held[:, ::page_size]] = -1
    return (q, key_pages, value_pages, table, lengths), kwargs


CALLS = Calls(
    "batch n_kv_heads groups q_len more half",
    arguments,
    batched={0: 1, 3: 1, 4: 1},
    multiplies=True,
    very_large=({"more": 8_191}, {"batch": 4_096, "groups": 4}, {"half": 1_030}),
)
