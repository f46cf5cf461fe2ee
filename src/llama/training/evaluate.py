"""`python -m llama evaluate`: how well a checkpoint predicts a text, in nats per token and in bits per byte."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from llama.generation.loading import FromCheckpoint
from llama.model.llama import Llama
from llama.text.corpus import load_corpus
from llama.text.windows import split
from llama.training import evaluation

PARTS = ("train", "validation", "test")
LONGEST = 256
"""Tokens of a window where the context is longer."""
ELEMENTS = 2**25
"""Logits that are held at a time, at most."""
HALF = (torch.bfloat16, torch.float16)
CHECKED, CHECKED_WINDOW = 16, 32
"""Windows whose positions are also computed from their own prefix alone, and their length."""


@dataclass(frozen=True)
class Evaluate(FromCheckpoint):
    """Measure how well a trained model predicts a text."""

    corpus: str = "tinyshakespeare"
    """tinyshakespeare, grammar, or the path of a UTF-8 text file."""
    part: Literal["train", "validation", "test", "all"] = "validation"
    """Which part of the text, divided as for training into 80, 10 and 10 percent."""
    window: int | None = None
    """Tokens that are predicted from each other's past at a time; the context by default, but at most 256."""
    tokens: int | None = None
    """Evaluate no more than the first so many tokens of that part."""


def run(config: Evaluate) -> None:
    """Print the loss of a checkpoint on a text, and whether it is honest; where it is quantised, what that costs.

    Raises ValueError or OSError, in one sentence, for a checkpoint or a text that cannot be used.
    """
    c, corpus = config, load_corpus(config.corpus)
    model, tokenizer = c.load()
    if corpus.notice:
        print(corpus.notice)
    if c.dtype == "bfloat16":  # not only in what is multiplied, as in training
        model.to(torch.bfloat16)
    # Divided before it is encoded, so that each part is the text that it was in training.
    text = corpus.text if c.part == "all" else dict(zip(PARTS, split(corpus.text), strict=True))[c.part]
    ids = tokenizer.encode(text)
    if c.tokens is not None:
        if c.tokens < 2:
            raise ValueError(f"evaluate: tokens must be at least 2, got {c.tokens}")
        ids = ids[: c.tokens]
    window = min(model.config.max_position_embeddings, LONGEST) if c.window is None else c.window
    if not 1 <= window <= model.config.max_position_embeddings:
        limit = model.config.max_position_embeddings
        raise ValueError(f"evaluate: window must lie in 1..{limit}, the context, got {window}")
    if len(ids) < 2:
        raise ValueError(f"evaluate: at least 2 tokens are needed, {c.part} of {corpus.name} has {len(ids)}")
    ids = ids.to(next(model.parameters()).device)
    predicted = evaluation.predicted_bytes(tokenizer, ids)
    if not predicted:
        raise ValueError(f"evaluate: the tokenizer knows nothing of {c.part} of {corpus.name}")
    if c.tokens is None and tokenizer.decode(ids) != text:
        print("The tokenizer does not give all of the text back; bits per byte are those of what it gives.")
    print(f"{corpus.name}, {c.part}: {len(ids):,} tokens, {predicted:,} bytes; windows of {window} tokens")
    before = _report(Path(c.checkpoint).name, model, ids, window, predicted)
    if c.quantize is not None:
        after = _report(f"{c.quantize} bits", c.quantized(model), ids, window, predicted)
        print(f"{c.quantize} bits cost {after - before:+.4f} nats per token")


def _report(name: str, model: Llama, ids: Int64[Tensor, "n"], window: int, predicted: int) -> float:
    batch = max(1, ELEMENTS // (window * model.config.vocab_size))
    loss = evaluation.loss(model, ids, window, batch)
    bits = evaluation.bits_per_byte(loss, len(ids) - 1, predicted)
    print(f"{name}: {loss:.4f} nats per token, {bits:.4f} bits per byte")
    if next(model.parameters()).dtype in HALF:  # in which the two losses differ by rounding alone
        return loss
    few = evaluation.spread(ids, min(window, CHECKED_WINDOW, len(ids) - 1), CHECKED)
    if (leak := evaluation.leak(model, few)).is_there:
        print(f"{name} reads the future: {leak.prefix:.4f} from prefixes alone, {leak.parallel:.4f} in parallel")
    return loss
