"""Training on a vocabulary as a text has it: few words are frequent, and most are rare."""

import json
import random

import tokenizers
import torch

from benchmarks.cases import Run, layer
from tests.cases.calls import Arguments, positional
from tests.cases.case import Case

LETTERS = b"etaoinshrdlu"
"""In the order in which English uses them, and of which the first ones are drawn more often."""
MERGES = 64
END = "\u0100"
"""Between words; no byte is this character."""


def arguments(case: Case) -> Arguments:
    """Different words of 2 to 8 letters, the i-th of which occurs count / i times, as Zipf found of texts."""
    draw = random.Random(case.seed)
    often = range(len(LETTERS), 0, -1)
    words: dict[bytes, int] = {}
    while len(words) < case.count:
        word = bytes(draw.choices(LETTERS, often, k=draw.randint(2, 8)))
        words.setdefault(word, max(1, case.count // (len(words) + 1)))
    return positional(words, 256 + case.n)


def read_by_the_library(words: dict[bytes, int], vocab: int) -> Run:
    """`tokenizers` from a text in which each word stands as often as it occurs, made beforehand."""
    text = [(word.decode("latin-1") + END) * count for word, count in words.items()]
    alphabet = [chr(byte) for byte in range(256)]

    def run() -> list[tuple[int, int]]:
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.CharDelimiterSplit(END)
        trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab, show_progress=False, initial_alphabet=alphabet)
        tokenizer.train_from_iterator(text, trainer)
        model = json.loads(tokenizer.to_str())["model"]
        return [(model["vocab"][left], model["vocab"][right]) for left, right in model["merges"]]

    return run


bench_bpe_train = layer(
    "bpe_train",
    along="count",
    sizes=(64, 512, 4096, 32768),
    others={"n": MERGES},
    moved=lambda c: 5 * c.count / torch.int64.itemsize,  # bytes of the words, of 5 letters on average
    naive=4096,
    arguments=arguments,
    peers={"tokenizers": read_by_the_library},
    dtypes=(torch.int64,),
)
