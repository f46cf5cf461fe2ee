"""Decoding: each id is looked up, and its bytes are appended.

The layers are given the merges in each call, and look at every one of them: of few ids this takes most of the time. The
libraries have their tables made before. `tiktoken` returns bytes, `tokenizers` text: here a character for each byte.
"""

import torch

from benchmarks.cases import FUSED, layer
from benchmarks.peers import spelled

LETTERS = range(97, 123)
MADE = range(256, 256 + len(LETTERS))
MERGES = [(left, 97 + left % 26) for left in LETTERS] + [(left, right) for left in MADE for right in MADE]
"""26 pairs of letters, and all pairs of these: nearly all ids are of 4 bytes, as tokens of English text are."""


def arguments(case):
    return ([256 + int(i) for i in case.integers([case.seq], len(MERGES))], MERGES), {}


def tiktoken(ids, merges):
    from tiktoken import Encoding

    ranks = {of: i for i, of in enumerate(spelled(merges))}
    encoding = Encoding("bench", pat_str=".", mergeable_ranks=ranks, special_tokens={})
    return lambda: encoding.decode_bytes(ids)


def tokenizers(ids, merges):
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE

    texts = [of.decode("latin-1") for of in spelled(merges)]
    pairs = [(texts[left], texts[right]) for left, right in merges]
    tokenizer = Tokenizer(BPE({text: i for i, text in enumerate(texts)}, pairs))
    tokenizer.decoder = decoders.Fuse()
    return lambda: tokenizer.decode(ids, skip_special_tokens=False)


def text(case):
    """What comes out."""
    return FUSED.bpe_decode(*arguments(case)[0])


bench_bpe_decode = layer(
    "bpe_decode",
    along="seq",
    sizes=(16, 256, 4096, 65536),
    others={"n": len(MERGES)},
    moved=lambda c: len(text(c)) / torch.int64.itemsize,  # bytes of text
    naive=65536,
    arguments=arguments,
    peers={"tokenizers": tokenizers, "tiktoken": tiktoken},
    dtypes=(torch.int64,),
)
