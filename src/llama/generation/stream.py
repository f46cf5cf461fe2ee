"""Text from a model, a token at a time: filter the logits, draw, append, repeat.

    for token in stream(model, prompt_ids, 200, temperature=0.8, seed=0): ...

The same seed gives the same tokens. The model sees at most max_position_embeddings tokens; when they are
used up, the older half is forgotten and the rest read again, so that a text may be of any length. Where
a model has no cache, or an implementation composes layers itself, all that it sees is read again for each token.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from llama.model.decoder import Decoder
from llama.model.kv_cache import KVCache
from llama.model.language_model import LanguageModel, evaluating
from llama.model.llama import Llama

COLDEST = 1e-6
"""The lowest temperature but 0: below it logits that are divided by it may leave float32, and 0 is what is meant."""


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


def positions_held(model: LanguageModel, prompt: int, max_new_tokens: int) -> int:
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
    positions = positions_held(model, token_ids.shape[1], max_new_tokens)
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
