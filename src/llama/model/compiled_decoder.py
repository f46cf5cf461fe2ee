"""A decoder whose token is one program for each decoder layer.

Nothing else of a token is a call of torch. In small models that is what counts; in large ones, that the programs read
their matrices as fast as memory gives (programs.py).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from llama.model.decoder import Decoder, laid_out
from llama.model.kv_cache import KVCache
from llama.model.llama import Llama
from llama.model.programs import Kind, Matrix, kept, program


class Form(NamedTuple):
    """What a program has to know of a model beside its weights."""

    eps: float
    n_heads: int
    n_kv_heads: int
    head_dim: int


class CompiledDecoder(Decoder):
    """A Decoder, of a model that `suits`. Codes are multiplied as codes. It needs a C++ compiler.

    Attention is computed in the wide dtype, whatever the cache holds. For a cache of another dtype than the model
    computes in, programs are made when the first token asks for them.
    """

    def _lay_out(self, model: Llama, weights: dict[str, Tensor], half: bool) -> None:
        self.config = model.config
        layers, head = laid_out(
            weights, self.config.num_hidden_layers, lambda matrices, norm: Matrix.of(matrices, norm, self.wide, half)
        )
        # By program: one computes a layer from its attention on, and the heads of the layer behind it.
        self.runs: list[list[Matrix]] = [[]]
        for qkv, *block in layers:
            self.runs[-1].append(qkv)
            self.runs.append(block)
        self.runs[-1].append(head)
        self.held = [[tensor for m in run for tensor in m.held] for run in self.runs]
        self.programs: dict[torch.dtype, list[Callable[..., Any]]] = {}
        self._programs(torch.bfloat16 if half else self.wide)

    def _programs(self, cached: torch.dtype) -> list[Callable[..., Any]]:
        """The programs up to the first attention, from each to the next, and from the last one on."""
        if cached in self.programs:
            return self.programs[cached]
        c, wide, runs = self.config, self.wide, self.runs
        heads, kv_heads = c.num_attention_heads, c.num_key_value_heads
        form = Form(c.rms_norm_eps, heads, kv_heads, c.head_dim)
        x, turn = Kind((c.hidden_size,), wide), Kind((1, c.head_dim), wide)
        q, rows = Kind((kv_heads, heads // kv_heads, c.head_dim), wide), Kind((2 * kv_heads, None, c.head_dim), cached)
        self.programs[cached] = [
            program(_first, form, runs[0], x, turn, turn, rows),
            *(program(_between, form, run, x, turn, turn, rows, q, rows) for run in runs[1:-1]),  # the same one
            program(_last, form, runs[-1], x, q, rows),
        ]
        return self.programs[cached]

    def _through_layers(
        self, x: Float[Tensor, "d_model"], cos: Tensor, sin: Tensor, cache: KVCache, logits: Float[Tensor, "vocab"]
    ) -> None:
        first, *between, last = self._programs(cache.dtype)
        rows, *following = cache.rows[..., : cache.length, :].unbind()
        q = first(x, cos, sin, rows, *self.held[0])[0]
        for run, held, next_rows in zip(between, self.held[1:-1], following, strict=True):
            x, q = run(x, cos, sin, next_rows, q, rows, *held)
            rows = next_rows
        logits.copy_(last(x, q, rows, *self.held[-1])[0])


def _first(form: Form, x: Tensor, cos: Tensor, sin: Tensor, rows: Tensor, qkv: Matrix) -> tuple[Tensor]:
    """The queries [n_kv_heads group head_dim] of a layer; its key and value are written into the last of the rows.

    rows [2·n_kv_heads positions head_dim] are the keys and then the values.
    """
    heads = (qkv @ x * _norm(form, x)).view(-1, form.head_dim)
    turned, values = heads[: -form.n_kv_heads], heads[-form.n_kv_heads :]
    left, right = turned.chunk(2, -1)
    turned = turned * cos + torch.cat((right, left), -1) * sin
    rows[:, -1].copy_(torch.cat((turned[form.n_heads :], values)))
    return (turned[: form.n_heads].view(form.n_kv_heads, -1, form.head_dim) * form.head_dim**-0.5,)


def _between(
    form: Form,
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    next_rows: Tensor,
    q: Tensor,
    rows: Tensor,
    o: Matrix,
    gate_up: Matrix,
    down: Matrix,
    qkv: Matrix,
) -> tuple[Tensor, Tensor]:
    x = _block(form, x, q, rows, o, gate_up, down)
    return x, *_first(form, x, cos, sin, next_rows, qkv)


def _last(
    form: Form, x: Tensor, q: Tensor, rows: Tensor, o: Matrix, gate_up: Matrix, down: Matrix, head: Matrix
) -> tuple[Tensor]:
    x = _block(form, x, q, rows, o, gate_up, down)
    return (head @ x * _norm(form, x),)


def _block(form: Form, x: Tensor, q: Tensor, rows: Tensor, o: Matrix, gate_up: Matrix, down: Matrix) -> Tensor:
    """What a decoder layer makes of x, from its attention on."""
    x = kept(x + o @ _attention(q, rows))
    gate, up = (gate_up @ x * _norm(form, x)).chunk(2)
    return kept(x + down @ kept(F.silu(gate) * up))


def _attention(q: Tensor, rows: Tensor) -> Tensor:
    keys, values = rows.to(q.dtype).unsqueeze(1).chunk(2)  # for each query of a group the same
    scores = (q.unsqueeze(2) * keys).sum(-1, keepdim=True)
    weights = (scores - scores.amax(2, keepdim=True)).exp()
    return kept(((weights * values).sum(2) / weights.sum(2)).view(-1))


def _norm(form: Form, x: Tensor) -> Tensor:
    """What RMSNorm multiplies x with, but for its weight."""
    return torch.rsqrt((x * x).mean() + form.eps)
