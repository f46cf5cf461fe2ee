"""One long word, with merges that were learned from such words: how the time grows with its length.

tiktoken knows tokens by what they spell; merges of a training spell no bytes twice, so it makes the same ids.
"""

import functools
import random
import string

import torch
from tokenizers.models import BPE

from benchmarks.cases import FUSED, layer
from benchmarks.peers import spelled

WORDS, MERGES = 2_000, 1_000


@functools.cache
def vocabulary():
    """Words of random letters, how often each occurs (by Zipf's law), and the merges that are learned from them."""
    draw = random.Random(0)
    words = [b" " + bytes(draw.choices(string.ascii_lowercase.encode(), k=draw.randint(1, 10))) for _ in range(WORDS)]
    counts = {word: 1 + WORDS // rank for rank, word in enumerate(words, start=1)}
    return counts, FUSED.bpe_train(counts, 256 + MERGES)


def arguments(case):
    """So many bytes of such words, drawn as often as they occur: one word for the layer."""
    counts, merges = vocabulary()
    drawn = random.Random(case.seed).choices([*counts], [*counts.values()], k=case.seq)
    return (b"".join(drawn)[: case.seq], merges), {}


def tokenizers(word, merges):
    texts = [of.decode("latin-1") for of in spelled(merges)]
    id_of = {text: i for i, text in enumerate(texts)}
    model = BPE(id_of, [(texts[left], texts[right]) for left, right in merges], cache_capacity=0)
    text = word.decode("latin-1")
    return lambda: [token.id for token in model.tokenize(text)]


def tiktoken(word, merges):
    from tiktoken import Encoding

    ranks = {of: i for i, of in enumerate(spelled(merges))}
    encoding = Encoding("merges", pat_str="(?s:.+)", mergeable_ranks=ranks, special_tokens={})
    text = word.decode("ascii")
    return lambda: encoding.encode_ordinary(text)


bench_bpe_encode = layer(
    "bpe_encode",
    along="seq",
    sizes=(16, 128, 1024, 8192, 65536),
    others={},
    moved=lambda c: c.seq / torch.int64.itemsize,  # bytes of text
    naive=1024,
    arguments=arguments,
    peers={"tokenizers": tokenizers, "tiktoken": tiktoken},
    dtypes=(torch.int64,),
)
