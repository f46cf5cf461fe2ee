"""A few new tokens at a time, of one sequence or of several, in as few operations as possible.

    decoder = BatchDecoder(model)
    logits = decoder(token_ids, cache, last=1)     # what model(token_ids, cache)[:, -1:] computes, [batch 1 vocab]

A matrix is read once for all of these tokens, so that they take much less time together than one by one. Hence

- large matrices are multiplied by oneDNN, which is faster with few rows than what torch calls by itself;
- the matrices that are multiplied with the same rows are one matrix (queries, keys and values; gate and up);
- what all layers have to know of the pages (paged_cache.py) is computed once for a pass;
- the head, often the largest matrix, is asked for the last tokens alone.

The weights are copied when a decoder is made: it does not see what becomes of the model later.
"""

from collections.abc import Callable
from typing import TypeGuard

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from llama.contract.weights import EMBEDDING
from llama.model.decoder import Decoder, laid_out, turns
from llama.model.kv_cache import Cache
from llama.model.language_model import LanguageModel
from llama.model.llama import Llama, check_pass
from llama.model.paged_cache import PagedLayer
from llama.model.products import RowsProduct
from llama.model.quantized import codes_of


class BatchDecoder:
    """A Llama that `suits`.

    Where the model computes in bfloat16, the large matrices are held in it, and attention is in the dtype of the cache;
    the rest is computed in at least float32.
    """

    @torch.inference_mode(False)  # in which what is made could not be written to outside of it
    @torch.no_grad()
    def __init__(self, model: Llama):
        c, weights, self.functions = model.config, model.held(), model.layers.unchecked()
        self.config = c
        self.embedding = weights[EMBEDDING].clone()
        self.wide = torch.promote_types(self.embedding.dtype, torch.float32)
        half = (model.compute_dtype or self.embedding.dtype) == torch.bfloat16

        def hold(matrices: list[Tensor], norm: Tensor | None) -> Callable[[Tensor], Tensor]:
            product = RowsProduct(matrices, self.wide, half)
            if norm is None:
                return product
            weight = norm.to(self.wide, copy=True)
            return lambda x: product(F.rms_norm(x, weight.shape, weight, c.rms_norm_eps))

        self.layers, self.head = laid_out(weights, c.num_hidden_layers, hold)
        self.frequencies = model.layers.rotation_frequencies(c, self.embedding.device)

    def __getstate__(self) -> None:
        # What lies in oneDNN's blocks has no copy.
        raise TypeError("decoder: it cannot be copied or pickled; make another one from the model")

    @staticmethod
    def suits(model: LanguageModel) -> TypeGuard[Llama]:
        """Whether it computes what this model does: as for a Decoder, but not where the weights are codes, which would
        have to become floats."""
        return Decoder.suits(model) and not any(codes_of(weight) for weight in model.held().values())

    @torch.no_grad()
    def __call__(
        self, token_ids: Int64[Tensor, "batch seq"], cache: Cache, last: int = 1
    ) -> Float[Tensor, "batch last vocab"]:
        """The logits after the last so many of these tokens, which follow what the cache holds.

        Raises IndexError for a token outside the vocabulary, ValueError for a cache of other sequences.
        """
        check_pass(token_ids, len(self.embedding), cache)
        (batch, seq), c = token_ids.shape, self.config
        positions = cache.positions(seq, token_ids.device).expand(batch, seq).flatten()
        cos, sin = turns(positions, self.frequencies, self.wide)
        x = F.embedding(token_ids.flatten(), self.embedding).to(self.wide)
        n_turned = c.num_attention_heads + c.num_key_value_heads
        n_heads = n_turned + c.num_key_value_heads
        for (qkv, o, gate_up, down), kept in zip(self.layers, cache.layers, strict=True):
            heads = qkv(x).unflatten(1, (n_heads, c.head_dim))
            turned, v = heads.tensor_split([n_turned], 1)
            turned = torch.addcmul(turned * cos, turned.roll(c.head_dim // 2, -1), sin)
            q, k = turned.tensor_split([c.num_attention_heads], 1)
            q, k, v = (t.unflatten(0, (batch, seq)).transpose(1, 2) for t in (q, k, v))
            if cache.dtype != self.wide:
                q, k, v = q.to(cache.dtype), k.to(cache.dtype), v.to(cache.dtype)
            at_once = seq == 1 and isinstance(kept, PagedLayer) and kept.places.alike
            y = kept.attend_at_once(q, k, v) if at_once else kept.attend(self.functions, q, k, v)
            x = x + o(y.transpose(1, 2).flatten(2).flatten(0, 1).to(self.wide))
            gate, up = gate_up(x).chunk(2, -1)
            x += down(F.silu(gate).mul_(up))
        x = x.unflatten(0, (batch, seq))[:, -last:]
        return self.head(x.flatten(0, 1)).unflatten(0, x.shape[:2])
