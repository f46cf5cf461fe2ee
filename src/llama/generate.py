"""Text from a model, a token at a time: filter the logits, draw, append, repeat.

    for token in stream(model, prompt_ids, 200, temperature=0.8, seed=0): ...

The same seed gives the same tokens. The model sees at most max_position_embeddings tokens; when they are
used up, the older half is forgotten and the rest read again, so that a text may be of any length. Where
a model has no cache, or an implementation composes layers itself, all that it sees is read again for each token.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from llama import checkpoint
from llama.decode import Decoder
from llama.device import usable
from llama.model import KVCache, LanguageModel, Llama, evaluating


@dataclass(frozen=True)
class Generate:
    """Let a trained model continue a text."""

    checkpoint: Path = Path("out/train/checkpoint")
    """Folder that `train` wrote."""
    prompt: str = "\n"
    """The text to continue."""
    max_new_tokens: int = 500
    """How many characters to add."""
    temperature: float = 0.8
    """Below 1 bolder choices, above 1 wilder ones; 0 always takes the likeliest."""
    top_k: int | None = None
    """Draw from the k likeliest only."""
    top_p: float | None = None
    """Draw from the likeliest that reach this probability together."""
    min_p: float | None = None
    """Draw from those at least this fraction as likely as the likeliest."""
    seed: int = 0
    """The same seed gives the same text."""
    impl: str = "fused"
    """Whose layers compute it: naive, vectorized, fused, a dotted module, a .py file or a folder."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the weights are rounded to; bfloat16 is faster for large models."""
    device: str = "cpu"
    """cpu, cuda or mps."""


@torch.no_grad()
def stream(
    model: LanguageModel,
    token_ids: Int64[Tensor, "batch seq"],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
) -> Iterator[Int64[Tensor, "batch"]]:
    """Yield the next token of each sequence, max_new_tokens times.

    Raises ValueError for an empty prompt, one longer than the context, and wrong sampling parameters.
    """
    context = model.config.max_position_embeddings
    if not 1 <= token_ids.shape[1] <= context:
        raise ValueError(f"generate: the prompt must have 1 to {context} tokens, got {token_ids.shape[1]}")
    if max_new_tokens < 0:
        raise ValueError(f"generate: max_new_tokens must not be negative, got {max_new_tokens}")
    random = torch.Generator().manual_seed(seed)
    weight = next(model.parameters())
    cached = isinstance(model, Llama) and not model.layers.composes
    decoder = Decoder(model) if cached and len(token_ids) == 1 and Decoder.suits(model) else None
    cache, unread, seen = None, token_ids, token_ids
    for _ in range(max_new_tokens):
        if seen.shape[1] > context:
            cache, unread = None, (seen := seen[:, -max(1, context // 2) :])
        with evaluating(model):
            if not cached:
                logits = model(seen)[:, -1]
            elif cache and decoder:
                logits = decoder(int(unread), cache)[None]
            else:
                cache = cache or KVCache(model.config, len(seen), model.compute_dtype or weight.dtype, weight.device)
                logits = model(unread, cache)[:, -1]
        logits = model.layers.filter_logits(logits, temperature, top_k, top_p, min_p)
        u = torch.rand(len(token_ids), generator=random, dtype=torch.float64)
        token = model.layers.sample(logits, u.to(logits.device, torch.float32 if logits.is_mps else torch.float64))
        unread = token[:, None]
        seen = torch.cat((seen, unread), dim=1)
        yield token


def generate(
    model: LanguageModel,
    token_ids: Int64[Tensor, "batch seq"],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
) -> Int64[Tensor, "batch longer"]:
    """The prompt with max_new_tokens tokens behind it; see `stream`."""
    new = list(stream(model, token_ids, max_new_tokens, temperature, top_k, top_p, min_p, seed))
    return torch.cat((token_ids, *(token[:, None] for token in new)), dim=1)


def run(config: Generate) -> None:
    """Print the prompt and what the model makes of it, character by character."""
    device = usable(config.device)
    model, tokenizer = checkpoint.load(config.checkpoint, config.impl)
    model.to(device).compute_dtype = torch.bfloat16 if config.dtype == "bfloat16" else None
    ids = tokenizer.encode(config.prompt)[None].to(device)
    c = config
    tokens = stream(model, ids, c.max_new_tokens, c.temperature, c.top_k, c.top_p, c.min_p, c.seed)
    sys.stdout.write(config.prompt)
    for token in tokens:
        sys.stdout.write(tokenizer.decode(token))
        sys.stdout.flush()
    sys.stdout.write("\n")
