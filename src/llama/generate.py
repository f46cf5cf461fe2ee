"""Text from a model, a token at a time: filter the logits, draw, append, repeat.

    for token in stream(model, prompt_ids, 200, temperature=0.8, seed=0): ...

The same seed gives the same tokens. The model sees at most max_position_embeddings tokens; when they are
used up, the older half is forgotten and the rest read again, so that a text may be of any length. Where
a model has no cache, or an implementation composes layers itself, all that it sees is read again for each token.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from jaxtyping import Int64
from torch import Tensor

from llama import checkpoint
from llama.decode import Decoder
from llama.device import check_memory, multiplies_bfloat16, usable
from llama.model import KVCache, LanguageModel, Llama, evaluating
from llama.text import pieces, read_prompt
from llama.tokenizer import Tokenizer

SEPARATOR = "---\n"
COLDEST = 1e-6
"""The lowest temperature but 0: below it logits that are divided by it may leave float32, and 0 is what is meant."""


@dataclass(frozen=True)
class Generate:
    """Let a trained model continue a text."""

    checkpoint: tyro.conf.Positional[Path] = Path("out/train/checkpoint")
    """Folder that `train` or transformers wrote, a file of llama2.c, or stories260K."""
    tokenizer: Path | None = None
    """Its tokenizer, where that is not the file beside the weights: a characters.json, tokenizer.json or tok512.bin."""
    prompt: str | None = None
    """The text to continue; - reads it from standard input. Without one a new text begins."""
    prompt_file: Path | None = None
    """A file with the text to continue."""
    max_new_tokens: int = 500
    """How many tokens to add at most; fewer where the model ends the text."""
    samples: int = 1
    """How many texts to write, all from the same prompt."""
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
    dtype: Literal["float32", "bfloat16"] | None = None
    """What the weights are turned into; by default they stay as they are, or become float32 where the device does not
    multiply bfloat16. Where it does, that is faster for large models."""
    device: str = "cpu"
    """cpu, cuda or mps."""


def stream(
    model: LanguageModel,
    token_ids: Int64[Tensor, "batch seq"],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    ends: Sequence[int] = (),
) -> Iterator[Int64[Tensor, "batch"]]:
    """Yield the next token of each sequence, max_new_tokens times, or until all of them have ended.

    A sequence ends with the first of `ends` that is drawn, which is then repeated while others go on.

    Raises ValueError, before anything is computed, for an empty prompt, one longer than the context, and wrong
    sampling parameters.
    """
    context = model.config.max_position_embeddings
    if token_ids.ndim != 2:
        raise ValueError(f"generate: token_ids must be [batch seq], got {list(token_ids.shape)}")
    if not 1 <= token_ids.shape[1] <= context:
        raise ValueError(f"generate: the prompt must have 1 to {context} tokens, got {token_ids.shape[1]}")
    if max_new_tokens < 0:
        raise ValueError(f"generate: max_new_tokens must not be negative, got {max_new_tokens}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"generate: seed must lie in 0..2^63 - 1, got {seed}")

    if 0 < temperature < COLDEST:
        raise ValueError(f"generate: temperature must be 0 or at least {COLDEST}, got {temperature}")

    def filtered(logits: Tensor) -> Tensor:
        return model.layers.filter_logits(logits, temperature, top_k, top_p, min_p)

    filtered(torch.zeros(1, model.config.vocab_size, device=token_ids.device))
    return _draw(model, token_ids, max_new_tokens, filtered, seed, ends)


def _positions(model: LanguageModel, prompt: int, max_new_tokens: int) -> int:
    """As many as are held at once: a context may be larger than there is memory for."""
    return min(model.config.max_position_embeddings, prompt + max_new_tokens)


@torch.no_grad()
def _draw(
    model: LanguageModel,
    token_ids: Int64[Tensor, "batch seq"],
    max_new_tokens: int,
    filtered: Callable[[Tensor], Tensor],
    seed: int,
    ends: Sequence[int],
) -> Iterator[Int64[Tensor, "batch"]]:
    context = model.config.max_position_embeddings
    positions = _positions(model, token_ids.shape[1], max_new_tokens)
    random = torch.Generator().manual_seed(seed)
    weight = next(model.parameters())
    cached = isinstance(model, Llama) and not model.layers.composes
    decoder = Decoder(model, positions) if len(token_ids) == 1 and Decoder.suits(model) else None
    cache, unread, seen = None, token_ids, token_ids
    stop = torch.tensor(ends, dtype=torch.int64, device=seen.device)
    ended = torch.zeros(len(seen), dtype=torch.bool, device=seen.device)
    for _ in range(max_new_tokens):
        if seen.shape[1] > context:
            cache, unread = None, (seen := seen[:, -max(1, context // 2) :])
        with evaluating(model):
            if not cached:
                logits = model(seen)[:, -1]
            elif cache and decoder:
                logits = decoder(int(unread), cache)[None]
            else:
                dtype = model.compute_dtype or weight.dtype
                cache = cache or KVCache(model.config, len(seen), dtype, weight.device, positions)
                logits = model(unread, cache)[:, -1]
        # A low temperature leaves float16.
        logits = filtered(logits.to(torch.promote_types(logits.dtype, torch.float32)))
        u = torch.rand(len(seen), generator=random, dtype=torch.float64)
        token = model.layers.sample(logits, u.to(logits.device, torch.float32 if logits.is_mps else torch.float64))
        token = torch.where(ended, seen[:, -1], token)
        unread = token[:, None]
        seen = torch.cat((seen, unread), dim=1)
        ended |= torch.isin(token, stop)
        yield token
        if ended.all():
            return


def generate(
    model: LanguageModel,
    token_ids: Int64[Tensor, "batch seq"],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    ends: Sequence[int] = (),
) -> Int64[Tensor, "batch longer"]:
    """The prompt with what `stream` yields behind it."""
    new = list(stream(model, token_ids, max_new_tokens, temperature, top_k, top_p, min_p, seed, ends))
    return torch.cat((token_ids, *(token[:, None] for token in new)), dim=1)


def _beginning(tokenizer: Tokenizer) -> str:
    """What a text begins with: nothing where a token says so, else a new line, or the first token that there is."""
    if len(tokenizer.encode("")):
        return ""
    try:
        tokenizer.encode("\n")
    except ValueError:
        return tokenizer.decode([0])
    return "\n"


def run(config: Generate) -> None:
    """Print the prompt and what the model makes of it: one text as it comes, several when all have ended.

    How many tokens there were, and how fast, is written on standard error.

    Raises ValueError or OSError, in one sentence and before anything is printed, for a checkpoint, a prompt or
    parameters that cannot be used.
    """
    c, device = config, usable(config.device)
    if c.samples < 1:
        raise ValueError(f"generate: samples must be at least 1, got {c.samples}")
    given = read_prompt(c.prompt, c.prompt_file)
    model, tokenizer = checkpoint.load(c.checkpoint, c.impl, c.tokenizer)
    wide = c.dtype == "float32" or (c.dtype is None and not multiplies_bfloat16(device))
    model.to(device, torch.float32 if wide else None)
    model.eval().compute_dtype = torch.bfloat16 if c.dtype == "bfloat16" else None
    prompt = _beginning(tokenizer) if given is None else given
    ids = tokenizer.encode(prompt)
    ends = model.config.ends
    if device.type == "cpu":
        of, size = model.config, (model.compute_dtype or next(model.parameters()).dtype).itemsize
        position = 2 * of.num_key_value_heads * of.head_dim * of.num_hidden_layers * size
        positions = _positions(model, len(ids), c.max_new_tokens)
        check_memory(f"generate: {c.samples} samples of {positions} tokens", c.samples * positions * position)
    started, count = time.perf_counter(), 0

    def until_the_end(row: Iterable[int]) -> Iterator[int]:
        nonlocal count
        for token in row:
            count += 1
            if token in ends:
                return
            yield token

    batch = ids.expand(c.samples, -1).to(device)
    tokens = stream(model, batch, c.max_new_tokens, c.temperature, c.top_k, c.top_p, c.min_p, c.seed, ends)
    if c.samples == 1:
        rows: Iterable[Iterable[int]] = [map(int, tokens)]
    else:  # none of no tokens
        rows = list(zip(*(token.tolist() for token in tokens), strict=True)) or [()] * c.samples
    for number, row in enumerate(rows):
        sys.stdout.write(SEPARATOR * bool(number) + prompt)
        for piece in pieces(tokenizer, ids.tolist(), until_the_end(row)):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
    seconds = time.perf_counter() - started
    print(f"{count:,} tokens in {seconds:.1f} s, {count / seconds:,.0f} tokens/s", file=sys.stderr)
