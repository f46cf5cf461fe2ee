"""`python -m llama tokenizer train`: learn byte pairs from a text, write them, and say what they are worth."""

import functools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from tqdm import tqdm

from llama import implementation
from llama.machine.safe_files import check_writable, write_atomically
from llama.text.byte_pairs import BYTES, LAYERS, BytePairTokenizer, check_vocab
from llama.text.corpus import load_corpus
from llama.text.splitting import Pattern
from llama.text.tokenizer import CharTokenizer

LONGEST = 8
"""Tokens that are shown."""


@dataclass(frozen=True)
class Tokenizer:
    """Train a tokenizer on a text and write it as a tokenizer.json."""

    action: tyro.conf.Positional[Literal["train"]]
    """What is done with the tokenizer."""
    corpus: str = "tinyshakespeare"
    """tinyshakespeare, grammar, or the path of a UTF-8 text file."""
    vocab: int = 1024
    """Tokens of the vocabulary: the 256 bytes, and one for each merge."""
    pattern: Pattern = "llama3"
    """The model whose way of splitting a text into words is used: tokens never reach beyond a word."""
    impl: str = "fused"
    """Whose layers learn and encode: naive, vectorized, fused, a dotted module, a .py file or a folder."""
    out: Path = Path("out/tokenizer/tokenizer.json")
    """File that is written; one that is there is replaced."""


def run(config: Tokenizer) -> BytePairTokenizer:
    """Train, write and report.

    Raises ValueError or OSError in one sentence, before anything is trained or written, for whatever cannot be used.
    """
    c = config
    if c.out.suffix != ".json" or c.out.name == CharTokenizer.FILE:  # a name says how a file is read
        raise ValueError(f"tokenizer: out must end in .json and not be {CharTokenizer.FILE}, got {c.out}")
    if c.out.is_dir():
        raise ValueError(f"tokenizer: {c.out} is a folder, and must be a file")
    check_writable(c.out.parent)
    check_vocab(c.vocab)
    corpus, layers = load_corpus(c.corpus), implementation.load(c.impl)
    if corpus.notice:
        print(corpus.notice, file=sys.stderr)
    size = len(corpus.text.encode())
    lacking = [layer for layer in LAYERS if layer in layers.lacking()]
    of = f"{layers.name} (from vectorized: {', '.join(lacking)})" if lacking else layers.name
    print(
        f"Corpus {corpus.name}: {size:,} bytes, split into words as {c.pattern} splits them; layers of {of}", flush=True
    )
    started = time.perf_counter()
    tokenizer = BytePairTokenizer.train(corpus.text, c.vocab, c.pattern, layers)
    trained = time.perf_counter()
    bar = functools.partial(tqdm, desc="encoding", unit="word", disable=None, file=sys.stderr, leave=False)
    ids = tokenizer.encode(corpus.text, watch=bar)
    encoded = time.perf_counter()
    write_atomically(c.out.parent, {c.out.name: tokenizer.save})
    longest = sorted(range(BYTES, tokenizer.vocab), key=lambda i: (-len(tokenizer.bytes_of([i])), i))[:LONGEST]
    print(f"Vocabulary: {tokenizer.vocab:,} tokens, the {BYTES} bytes and {len(tokenizer.merges):,} merges")
    if tokenizer.vocab < c.vocab:
        print(f"  {c.vocab:,} were asked for; every word of this text is one token before that")
    print(f"Bytes per token: {size / len(ids):.3f}, {len(ids):,} tokens for the whole corpus")
    print(f"Longest tokens: {', '.join(repr(tokenizer.decode([i])) for i in longest)}")
    print(f"Trained in {trained - started:.1f} s, the corpus encoded in {encoded - trained:.1f} s")
    print(f"\nWritten: {c.out}")
    return tokenizer
