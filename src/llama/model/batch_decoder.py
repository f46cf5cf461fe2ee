"""A few new tokens at a time, of one sequence or of several, in as few operations as possible.

    decoder = BatchDecoder(model)
    logits = decoder(token_ids, cache)             # what model(token_ids, cache)[:, -1:] computes, [batch 1 vocab]

A matrix is read once for all of these tokens, so that they could take hardly longer than one alone. Hence

- large matrices are multiplied by oneDNN, which keeps that up for few rows; what torch calls by itself does not;
- the matrices that are multiplied with the same rows are one matrix (queries, keys and values; gate and up);
- what all layers have to know of the pages (paged_cache.py) is computed once for a pass;
- the head, often the largest matrix, is asked for the last tokens alone.

The weights are copied when a decoder is made: it does not see what becomes of the model later.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from llama.contract import check_ids
from llama.contract.weights import DECODER_LAYER, EMBEDDING, FINAL_NORM, HEAD, in_layer
from llama.model.kv_cache import Cache
from llama.model.llama import Llama
from llama.model.paged_cache import PagedLayer
from llama.model.products import RowsProduct


class BatchDecoder:
    """A Llama on a CPU that `Decoder.suits`.

    Where the model computes in bfloat16, the large matrices are held in it, and attention is in the dtype of the cache;
    the rest is computed in at least float32. Codes are turned into the weights that they mean.
    """

    @torch.inference_mode(False)  # in which what is made could not be written to outside of it
    @torch.no_grad()
    def __init__(self, model: Llama):
        c, weights, self.of = model.config, model.held(), model.layers.unchecked()
        self.config, self.eps = c, c.rms_norm_eps
        self.embedding = weights[EMBEDDING].clone()
        self.wide = torch.promote_types(self.embedding.dtype, torch.float32)
        half = (model.compute_dtype or self.embedding.dtype) == torch.bfloat16

        def product(*names: str) -> RowsProduct:
            return RowsProduct([weights[name] for name in names], self.wide, half)

        def norm(name: str) -> Tensor:
            return weights[name].to(self.wide, copy=True)

        self.layers = []
        for i in range(c.num_hidden_layers):
            before, q, k, v, o, ffn_norm, gate, up, down = (in_layer(i, name) for name in DECODER_LAYER)
            self.layers.append(
                (norm(before), product(q, k, v), product(o), norm(ffn_norm), product(gate, up), product(down))
            )
        self.final_norm, self.head = norm(FINAL_NORM), product(HEAD if HEAD in weights else EMBEDDING)
        self.frequencies = model.layers.rotation_frequencies(c, self.embedding.device)

    @torch.no_grad()
    def __call__(
        self, token_ids: Int64[Tensor, "batch seq"], cache: Cache, last: int = 1
    ) -> Float[Tensor, "batch last vocab"]:
        """The logits after the last so many of these tokens, which follow what the cache holds.

        Raises IndexError for a token outside the vocabulary and ValueError for a cache of other sequences.
        """
        check_ids("decoder: token", token_ids, len(self.embedding))
        (batch, seq), c = token_ids.shape, self.config
        cache.check(batch)
        positions = cache.positions(seq, token_ids.device).expand(batch, seq).flatten()
        cos, sin = self._rotations(positions)
        x = F.embedding(token_ids.flatten(), self.embedding).to(self.wide)
        n_turned = c.num_attention_heads + c.num_key_value_heads
        for (norm, qkv, o, ffn_norm, gate_up, down), kept in zip(self.layers, cache.layers, strict=True):
            heads = qkv(self._normed(x, norm)).view(batch * seq, -1, c.head_dim)
            turned = heads[:, :n_turned]
            turned = torch.addcmul(turned * cos, turned.roll(c.head_dim // 2, -1), sin)
            of_tokens = (*turned.tensor_split([c.num_attention_heads], 1), heads[:, n_turned:])
            q, k, v = (t.view(batch, seq, -1, c.head_dim).transpose(1, 2) for t in of_tokens)
            if cache.dtype != self.wide:
                q, k, v = q.to(cache.dtype), k.to(cache.dtype), v.to(cache.dtype)
            at_once = seq == 1 and isinstance(kept, PagedLayer) and kept.places.alike
            y = kept.attend_at_once(q, k, v) if at_once else kept.attend(self.of, q, k, v)
            y = y.transpose(1, 2).reshape(batch * seq, -1)
            x = x + o(y.to(self.wide))
            gate, up = gate_up(self._normed(x, ffn_norm)).chunk(2, -1)
            x += down(F.silu(gate).mul_(up))
        x = x.view(batch, seq, -1)[:, -last:].flatten(0, 1)
        return self.head(self._normed(x, self.final_norm)).unflatten(0, (batch, -1))

    def _normed(self, x: Float[Tensor, "rows d_model"], weight: Float[Tensor, "d_model"]) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.eps)

    def _rotations(self, positions: Int64[Tensor, "rows"]) -> tuple[Tensor, Tensor]:
        """cos, and sin with the sign of each half, [rows 1 head_dim]."""
        angle = positions[:, None, None] * self.frequencies
        cos, sin = angle.cos().to(self.wide), angle.sin().to(self.wide)
        return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
