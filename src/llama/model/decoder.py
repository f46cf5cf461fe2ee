"""One new token at a time, in as few operations as there are.

    cache = KVCache(model.config, batch=1)
    logits = model(prompt, cache)                  # the prompt in one pass
    decoder = Decoder(model)
    logits = decoder(token, cache)                 # what model([[token]], cache) computes, [vocab]

A single token leaves nothing for a matrix product to share: each weight is read once and used once, so
what counts is how fast memory is read, and, in small models, how many operations there are. Hence

- the matrices that are multiplied with the same vector are one matrix (queries, keys and values; gate and up);
- RMSNorm's weights are multiplied into the matrices that follow; what is left of the norm is one number for
  the token, a factor of the product;
- the angles of all positions are computed once;
- what a layer computes is written where the last layer's was, and the views of it are made once: between two
  large matrices, which have swept the caches, each call of torch costs several times what it costs alone;
- the query heads that share a key head are handed to attention as queries of one head, which then reads its keys once;
- how the matrices are held and multiplied, products.py chooses by size and dtype.

Where there is a compiler, programs are faster still (compiled_decoder.py).

The weights are copied when a decoder is made: it does not see what becomes of the model later. It serves one caller
at a time.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from llama.contract.weights import DECODER_LAYER, EMBEDDING, FINAL_NORM, HEAD, in_layer
from llama.model.kv_cache import KVCache
from llama.model.language_model import LanguageModel
from llama.model.llama import Llama
from llama.model.products import product_of

Held = TypeVar("Held")


class Decoder:
    """A Llama for one sequence on a CPU, position by position: the first max_position_embeddings, or `positions`.

    Where the model computes in bfloat16, the large matrices are held in it, and attention is in the dtype of the cache;
    the rest is computed in at least float32. Codes are turned into the weights that they mean.
    """

    @torch.inference_mode(False)  # in which what is made could not be written to outside of it
    @torch.no_grad()
    def __init__(self, model: Llama, positions: int | None = None):
        c, weights = model.config, model.held()
        self.embedding = weights[EMBEDDING].clone()
        self.wide = torch.promote_types(self.embedding.dtype, torch.float32)
        frequencies = model.layers.rotation_frequencies(c, self.embedding.device)
        held = torch.arange(positions or c.max_position_embeddings)
        self.cos, self.sin = turns(held, frequencies, self.wide)
        self._lay_out(model, weights, (model.compute_dtype or self.embedding.dtype) == torch.bfloat16)

    def _lay_out(self, model: Llama, weights: dict[str, Tensor], half: bool) -> None:
        """Hold the matrices as they are multiplied, those that are large enough in bfloat16 if `half`."""
        c = model.config
        self.eps, self.d_model = c.rms_norm_eps, c.hidden_size
        self.layers, self.head = laid_out(
            weights, c.num_hidden_layers, lambda matrices, norm: product_of(matrices, norm, self.wide, half)
        )
        self.partners = torch.arange(c.head_dim).roll(c.head_dim // 2)

        heads = torch.empty(c.num_attention_heads + 2 * c.num_key_value_heads, c.head_dim, dtype=self.wide)
        self.heads, self.turned = heads.view(-1), heads[: -c.num_key_value_heads]
        self.queries = heads[: c.num_attention_heads].view(1, c.num_key_value_heads, -1, c.head_dim)
        self.new = heads[c.num_attention_heads :]
        self.gate_up = torch.empty(2 * c.intermediate_size, dtype=self.wide)
        self.gate, self.up = self.gate_up.chunk(2)

    def __getstate__(self) -> None:
        # Of a copy, the views would no longer be those of its buffers.
        raise TypeError("decoder: it cannot be copied or pickled; make another one from the model")

    @staticmethod
    def suits(model: LanguageModel) -> TypeGuard[Llama]:
        """Whether a decoder computes what this model does: with our fused layers, on a CPU, in the one dtype of its
        weights (but not in float16, which would overflow) or in bfloat16."""
        dtypes, of = {p.dtype for p in model.parameters()}, model.layers
        computed = model.compute_dtype or next(iter(dtypes))
        known = computed == torch.bfloat16 or (dtypes == {computed} and computed != torch.float16)
        fused = of.is_ours and of.name == "fused"
        return isinstance(model, Llama) and fused and known and len(dtypes) == 1 and next(model.parameters()).is_cpu

    @torch.no_grad()
    def __call__(self, token: int, cache: KVCache) -> Float[Tensor, "vocab"]:
        """The logits after one more token.

        Raises IndexError for a token outside the vocabulary and ValueError for a cache that is full or of more
        sequences, and where as many positions are held as the decoder was made for.
        """
        at = self._claim([token], cache)
        logits = torch.empty(len(self.embedding), dtype=self.wide)  # before, so that a caller may change it
        with torch.inference_mode():  # in which a call of torch takes less time
            x = self.embedding[token].to(self.wide, copy=True)
            self._through_layers(x, self.cos[at], self.sin[at], cache, logits)
        return logits

    def several(self, tokens: Sequence[int], cache: KVCache) -> Float[Tensor, "tokens vocab"]:
        """The logits after each of a few more tokens, read one after the other.

        Raises what a call for one of them does; those before it are then in the cache.
        """
        return torch.stack([self(token, cache) for token in tokens])

    def _claim(self, tokens: Sequence[int], cache: KVCache) -> int:
        """Make room for these tokens in the cache; return the position of the first one."""
        for token in tokens:
            if not 0 <= token < len(self.embedding):
                raise IndexError(f"decoder: token must lie in 0..{len(self.embedding) - 1}, got {token}")
        cache.check(1)
        if (end := cache.length + len(tokens)) > (of := len(self.cos)) and of < cache.memory.shape[3]:
            raise ValueError(f"decoder: {end} positions do not fit into the {of} that it was made for")
        return cache.claim(len(tokens))

    def _through_layers(
        self, x: Float[Tensor, "d_model"], cos: Tensor, sin: Tensor, cache: KVCache, logits: Float[Tensor, "vocab"]
    ) -> None:
        """Write the logits after the token with this embedding, for which the cache has made room."""
        seen = (t[..., : cache.length, :].unbind() for t in (cache.keys, cache.values))
        rows = cache.rows[..., cache.length - 1, :].unbind()
        for (qkv, o, gate_up, down), key, value, row in zip(self.layers, *seen, rows, strict=True):
            qkv(x, self._norm(x), out=self.heads)
            partners = self.turned.index_select(-1, self.partners)
            torch.addcmul(self.turned * cos, partners, sin, out=self.turned)
            row.copy_(self.new)
            y = F.scaled_dot_product_attention(self.queries.to(key.dtype), key, value)
            o(y.reshape(-1).to(self.wide), 1.0, out=x, plus=True)
            gate_up(x, self._norm(x), out=self.gate_up)
            down(F.silu(self.gate).mul_(self.up), 1.0, out=x, plus=True)
        self.head(x, self._norm(x), out=logits)

    def _norm(self, x: Float[Tensor, "d_model"]) -> float:
        """What RMSNorm multiplies x with, but for its weight."""
        mean_square = float(torch.dot(x, x)) / self.d_model + self.eps
        return mean_square**-0.5 if mean_square else math.nan  # 0 / 0, as the formula says


def laid_out(
    weights: Mapping[str, Tensor], n_layers: int, hold: Callable[[list[Tensor], Tensor | None], Held]
) -> tuple[list[tuple[Held, Held, Held, Held]], Held]:
    """What `hold` makes of the matrices of each layer, and of the head.

    It is given those that are multiplied with the same vector, and the weight of the norm before them: queries, keys
    and values; output; gate and up; down.
    """

    def held(norm: str, *names: str) -> Held:
        return hold([weights[name] for name in names], weights.get(norm))

    layers = []
    for i in range(n_layers):
        norm, q, k, v, o, ffn_norm, gate, up, down = (in_layer(i, name) for name in DECODER_LAYER)
        layers.append((held(norm, q, k, v), held("", o), held(ffn_norm, gate, up), held("", down)))
    return layers, held(FINAL_NORM, HEAD if HEAD in weights else EMBEDDING)


def turns(
    positions: Int64[Tensor, "n"], frequencies: Float[Tensor, "half"], dtype: torch.dtype
) -> tuple[Float[Tensor, "n 1 head_dim"], Float[Tensor, "n 1 head_dim"]]:
    """cos, and sin with a minus in its first half: a head x turns to x · cos + (x with its halves exchanged) · sin."""
    angle = positions[:, None, None] * frequencies
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
