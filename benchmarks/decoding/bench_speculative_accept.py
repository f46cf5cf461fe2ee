"""Speculative accept: two softmaxes for each draft. transformers draws its random numbers, and computes in float32."""

import torch

from benchmarks.cases import layer

DRAFTS = 4


def arguments(case):
    """All drafts are kept, so that every row is read."""
    (drafted, wanted), ids = (case.normal([DRAFTS + more, case.vocab]) for more in (0, 1)), case.integers([DRAFTS], 9)
    u = torch.zeros(DRAFTS, device=ids.device)
    return (drafted, wanted, ids, u, torch.full((), 0.5, device=ids.device)), {}


def transformers(draft_logits, target_logits, draft_ids, u, v):
    from transformers.generation.utils import _speculative_sampling

    drafted, wanted = draft_logits[None].float(), target_logits[None].float()
    return lambda: _speculative_sampling(draft_ids[None], drafted, len(draft_ids), wanted)[0]


bench_speculative_accept = layer(
    "speculative_accept",
    along="vocab",
    sizes=(64, 1024, 8192, 131072),
    others={},
    moved=lambda c: (2 * DRAFTS + 1) * c.vocab,
    naive=1024,
    arguments=arguments,
    peers={"transformers": transformers},
)
