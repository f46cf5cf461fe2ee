"""Text from a model, a token at a time: filter the logits, draw, append, repeat.

    for token in stream(model, prompt_ids, 200, temperature=0.8, seed=0): ...

The same seed gives the same tokens. The model sees at most max_position_embeddings tokens; when they are
used up, the older half is forgotten and the rest read again, so that a text may be of any length. Where
a model has no cache, or an implementation composes layers itself, all that it sees is read again for each token.
"""

from collections.abc import Iterator, Sequence
from typing import TypeGuard

import torch
from jaxtyping import Int64
from torch import Tensor

from llama.generation.drawing import Drawing, generator, uniform
from llama.model.batch_decoder import BatchDecoder
from llama.model.compiled_decoder import CompiledDecoder
from llama.model.decoder import Decoder
from llama.model.kv_cache import KVCache
from llama.model.language_model import LanguageModel, evaluating
from llama.model.llama import Llama

CHUNK = 512
"""Tokens of a prompt that are read at a time: the memory of a pass grows with their number."""


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
    chunk: int = CHUNK,
    compile: bool = False,
) -> Iterator[Int64[Tensor, "batch"]]:
    """Yield the next token of each sequence, max_new_tokens times, or until all of them have ended.

    A sequence ends with the first of `ends` that is drawn, which is then repeated while others go on. The prompt is
    read in chunks of so many tokens.

    With `compile`, a single sequence is decoded by programs that are made for the model (compiled_decoder.py).

    Raises ValueError, before anything is computed, for an empty prompt, one longer than the context, and wrong
    sampling parameters.
    """
    if token_ids.ndim != 2:
        raise ValueError(f"generate: token_ids must be [batch seq], got {list(token_ids.shape)}")
    check(model, token_ids.shape[1], max_new_tokens, chunk)
    drawing, random = Drawing(model, temperature, top_k, top_p, min_p), generator(seed)
    return _draw(model, token_ids, max_new_tokens, drawing, random, ends, chunk, compile)


def check(model: LanguageModel, prompt: int, max_new_tokens: int, chunk: int = CHUNK) -> None:
    """Raise ValueError for a prompt of so many tokens, and for a number of new ones, that a model cannot have."""
    context = model.config.max_position_embeddings
    if not 1 <= prompt <= context:
        raise ValueError(f"generate: the prompt must have 1 to {context} tokens, got {prompt}")
    if max_new_tokens < 0:
        raise ValueError(f"generate: max_new_tokens must not be negative, got {max_new_tokens}")
    if chunk < 1:
        raise ValueError(f"generate: chunk must be at least 1, got {chunk}")


def positions_held(model: LanguageModel, prompt: int, max_new_tokens: int) -> int:
    """As many as are held at once: a context may be larger than there is memory for."""
    return min(model.config.max_position_embeddings, prompt + max_new_tokens)


def kept(seen: int, context: int) -> int:
    """How many of the tokens seen are not forgotten: the newer half where they do not fit into the context."""
    return seen if seen <= context else max(1, context // 2)


def has_cache(model: LanguageModel) -> TypeGuard[Llama]:
    """Whether a pass of that model can go on from where the last one ended."""
    return isinstance(model, Llama) and not model.layers.composes


@torch.no_grad()
def _draw(
    model: LanguageModel,
    token_ids: Int64[Tensor, "batch seq"],
    max_new_tokens: int,
    drawing: Drawing,
    random: torch.Generator,
    ends: Sequence[int],
    chunk: int,
    compile: bool,
) -> Iterator[Int64[Tensor, "batch"]]:
    if max_new_tokens == 0:
        return
    context = model.config.max_position_embeddings
    positions = positions_held(model, token_ids.shape[1], max_new_tokens)
    weight = next(model.parameters())
    alone = len(token_ids) == 1
    decoder = (CompiledDecoder if compile else Decoder)(model, positions) if alone and Decoder.suits(model) else None
    batch_decoder = BatchDecoder(model) if not alone and BatchDecoder.suits(model) else None
    cache, unread, seen = None, token_ids, token_ids
    stop = torch.tensor(ends, dtype=torch.int64, device=seen.device)
    ended = torch.zeros(len(seen), dtype=torch.bool, device=seen.device)
    for _ in range(max_new_tokens):
        if (left := kept(seen.shape[1], context)) < seen.shape[1]:
            cache, unread = None, (seen := seen[:, -left:])
        with evaluating(model):
            if not has_cache(model):
                logits = model(seen)[:, -1]
            elif cache and decoder:
                logits = decoder(int(unread), cache)[None]
            else:
                dtype = model.compute_dtype or weight.dtype
                cache = cache or KVCache(model.config, len(seen), dtype, weight.device, positions)
                for part in unread.split(chunk, dim=1):
                    logits = (batch_decoder or model)(part, cache)[:, -1]
        token = torch.where(ended, seen[:, -1], drawing(logits, uniform(random, len(seen))))
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
    compile: bool = False,
) -> Int64[Tensor, "batch longer"]:
    """The prompt with what `stream` yields behind it."""
    sampling = (temperature, top_k, top_p, min_p, seed)
    new = list(stream(model, token_ids, max_new_tokens, *sampling, ends, compile=compile))
    return torch.cat((token_ids, *(token[:, None] for token in new)), dim=1)
