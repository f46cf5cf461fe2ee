"""A decoder whose token is a program from one attention to the next.

Nothing else of a token is a call of torch but attention, which reads more from token to token, and the cache's new row.
In small models that is what counts; in large ones, that the programs read their matrices as fast as memory gives
(programs.py).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from llama.model.decoder import Decoder, Seen, laid_out
from llama.model.llama import Llama
from llama.model.programs import Matrix, kept, program


class Form(NamedTuple):
    """What a program has to know of a model beside its weights."""

    eps: float
    n_heads: int
    n_kv_heads: int
    head_dim: int


class CompiledDecoder(Decoder):
    """A Decoder, of a model that `suits`. Codes are multiplied as codes. It needs a C++ compiler."""

    def _lay_out(self, model: Llama, weights: dict[str, Tensor], half: bool) -> None:
        c = model.config
        layers, head = laid_out(
            weights, c.num_hidden_layers, lambda matrices, norm: Matrix.of(matrices, norm, self.wide, half)
        )
        # In the order in which they are multiplied with, from one attention to the next.
        runs: list[list[Matrix]] = [[]]
        for qkv, *block in layers:
            runs[-1].append(qkv)
            runs.append(block)
        runs[-1].append(head)
        self.runs = [[tensor for m in run for tensor in m.held] for run in runs]

        form = Form(c.rms_norm_eps, c.num_attention_heads, c.num_key_value_heads, c.head_dim)
        x, y = (torch.empty(n, dtype=self.wide) for n in (c.hidden_size, c.num_attention_heads * c.head_dim))
        cos, sin = self.cos[0], self.sin[0]
        self.first = program(_first, form, runs[0], x, cos, sin)
        self.between = program(_between, form, runs[1], x, cos, sin, y) if len(runs) > 2 else None
        self.last = program(_last, form, runs[-1], x, y)

    def _through_layers(
        self, x: Float[Tensor, "d_model"], cos: Tensor, sin: Tensor, seen: Seen, logits: Float[Tensor, "vocab"]
    ) -> None:
        q, new = self.first(x, cos, sin, *self.runs[0])
        for held, key, value, row in zip(self.runs[1:], *seen, strict=True):
            row.copy_(new)
            y = F.scaled_dot_product_attention(q.to(key.dtype), key, value).reshape(-1).to(self.wide)
            if self.between and held is not self.runs[-1]:
                x, q, new = self.between(x, cos, sin, y, *held)
        logits.copy_(self.last(x, y, *self.runs[-1])[0])


def _first(form: Form, x: Tensor, cos: Tensor, sin: Tensor, qkv: Matrix) -> tuple[Tensor, ...]:
    """The queries of the heads that share a key head, and the rows of the cache."""
    heads = (qkv @ x * _norm(form, x)).view(-1, form.head_dim)
    turned, values = heads[: -form.n_kv_heads], heads[-form.n_kv_heads :]
    left, right = turned.chunk(2, -1)
    turned = turned * cos + torch.cat((right, left), -1) * sin
    queries, keys = turned[: form.n_heads], turned[form.n_heads :]
    return queries.view(1, form.n_kv_heads, -1, form.head_dim), torch.cat((keys, values))


def _between(
    form: Form, x: Tensor, cos: Tensor, sin: Tensor, y: Tensor, o: Matrix, gate_up: Matrix, down: Matrix, qkv: Matrix
) -> tuple[Tensor, ...]:
    x = _block(form, x, y, o, gate_up, down)
    return x, *_first(form, x, cos, sin, qkv)


def _last(form: Form, x: Tensor, y: Tensor, o: Matrix, gate_up: Matrix, down: Matrix, head: Matrix) -> tuple[Tensor]:
    x = _block(form, x, y, o, gate_up, down)
    return (head @ x * _norm(form, x),)


def _block(form: Form, x: Tensor, y: Tensor, o: Matrix, gate_up: Matrix, down: Matrix) -> Tensor:
    x = kept(x + o @ y)
    gate, up = (gate_up @ x * _norm(form, x)).chunk(2)
    return kept(x + down @ kept(F.silu(gate) * up))


def _norm(form: Form, x: Tensor) -> Tensor:
    """What RMSNorm multiplies x with, but for its weight."""
    return torch.rsqrt((x * x).mean() + form.eps)
