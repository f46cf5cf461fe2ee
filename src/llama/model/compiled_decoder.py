"""A decoder whose token, or whose few tokens, are one program for each decoder layer.

    decoder = CompiledDecoder(model)
    logits = decoder(token, cache)                 # what model([[token]], cache) computes, [vocab]
    decoder = CompiledDecoder(model, tokens=5)
    logits = decoder.several(tokens, cache)        # what model([tokens], cache) computes, [5 vocab]

Nothing else of a token is a call of torch. In small models that is what counts; in large ones, that the programs read
their matrices as fast as memory gives (programs.py), and once for all of the tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from llama.model.decoder import Decoder, laid_out
from llama.model.kv_cache import KVCache
from llama.model.llama import Llama
from llama.model.programs import Kind, Matrix, kept, program

FEW = 8
"""Tokens at a time for which programs are worth making: the sums of more do not fit into a processor's registers."""


class Form(NamedTuple):
    """What a program has to know of a model beside its weights, and how many tokens it is for."""

    tokens: int
    eps: float
    n_heads: int
    n_kv_heads: int
    head_dim: int


class CompiledDecoder(Decoder):
    """A Decoder for so many tokens at a time, of a model that `suits`. It needs a C++ compiler.

    Codes are multiplied as codes. Attention is computed in the wide dtype, whatever the cache holds. For a cache of
    another dtype than the model computes in, programs are made when the first token asks for them.
    """

    def __init__(self, model: Llama, positions: int | None = None, tokens: int = 1):
        self.tokens = tokens
        super().__init__(model, positions)

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
        c, wide, runs, n = self.config, self.wide, self.runs, self.tokens
        heads, kv_heads = c.num_attention_heads, c.num_key_value_heads
        form = Form(n, c.rms_norm_eps, heads, kv_heads, c.head_dim)
        x, turn = Kind((n, c.hidden_size), wide), Kind((n, 1, c.head_dim), wide)
        q = Kind((kv_heads, n * heads // kv_heads, c.head_dim), wide)
        rows = Kind((2 * kv_heads, None, c.head_dim), cached)
        self.programs[cached] = [
            program(_first, form, runs[0], x, turn, turn, rows),
            # All layers are alike, and have one program.
            *(program(_between, form, run, x, turn, turn, rows, q, rows) for run in runs[1:-1]),
            program(_last, form, runs[-1], x, q, rows),
        ]
        return self.programs[cached]

    @torch.no_grad()
    def several(self, tokens: Sequence[int], cache: KVCache) -> Float[Tensor, "tokens vocab"]:
        """The logits after each of these tokens, as many as the decoder is for.

        Raises ValueError for another number of them, and what a call for one token raises.
        """
        if len(tokens) != self.tokens:
            raise ValueError(f"decoder: it was made for {self.tokens} tokens at a time, got {len(tokens)}")
        first, *between, last = self._programs(cache.dtype)  # before a position is taken, since that may fail
        at = self._claim(tokens, cache)
        # Before inference mode, so that a caller may change it.
        logits = torch.empty(len(tokens), len(self.embedding), dtype=self.wide)
        with torch.inference_mode():
            x = self.embedding[torch.tensor(tokens)].to(self.wide)
            cos, sin = self.cos[at : cache.length], self.sin[at : cache.length]
            rows, *following = cache.rows[..., : cache.length, :].unbind()
            q = first(x, cos, sin, rows, *self.held[0])[0]
            for run, held, next_rows in zip(between, self.held[1:-1], following, strict=True):
                x, q = run(x, cos, sin, next_rows, q, rows, *held)
                rows = next_rows
            logits.copy_(last(x, q, rows, *self.held[-1])[0])
        return logits

    def __call__(self, token: int, cache: KVCache) -> Float[Tensor, "vocab"]:
        return self.several([token], cache)[0]


def _first(form: Form, x: Tensor, cos: Tensor, sin: Tensor, rows: Tensor, qkv: Matrix) -> tuple[Tensor]:
    """The queries [n_kv_heads tokens·group head_dim] of a layer; its keys and values are written into the last rows.

    rows [2·n_kv_heads positions head_dim] are the keys and then the values.
    """
    heads = (qkv.of_rows(x) * _norm(form, x)).view(form.tokens, -1, form.head_dim)
    turned, values = heads.tensor_split([-form.n_kv_heads], 1)
    left, right = turned.chunk(2, -1)
    turned = turned * cos + torch.cat((right, left), -1) * sin
    queries, keys = turned.tensor_split([form.n_heads], 1)
    rows[:, -form.tokens :].copy_(torch.cat((keys, values), 1).transpose(0, 1))
    queries = queries.view(form.tokens, form.n_kv_heads, -1, form.head_dim).transpose(0, 1)
    return ((queries * form.head_dim**-0.5).contiguous().view(form.n_kv_heads, -1, form.head_dim),)


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
    return (head.of_rows(x) * _norm(form, x),)


def _block(form: Form, x: Tensor, q: Tensor, rows: Tensor, o: Matrix, gate_up: Matrix, down: Matrix) -> Tensor:
    """What a decoder layer makes of x, from its attention on."""
    x = kept(x + o.of_rows(_attention(form, q, rows)))
    gate, up = (gate_up.of_rows(x) * _norm(form, x)).chunk(2, -1)
    return kept(x + down.of_rows(kept(F.silu(gate) * up)))


def _attention(form: Form, q: Tensor, rows: Tensor) -> Tensor:
    """[tokens n_heads·head_dim]. The division comes last: there are fewer sums than there are weights."""
    keys, values = rows.to(q.dtype).unsqueeze(1).chunk(2)  # the same for each query of a group
    scores = (q.unsqueeze(2) * keys).sum(-1).unflatten(1, (form.tokens, -1))
    if form.tokens > 1:
        before = rows.shape[1] - form.tokens
        own = before + torch.arange(form.tokens).view(-1, 1, 1)
        scores = scores.masked_fill(torch.arange(rows.shape[1]) > own, -torch.inf)
    weights = (scores - scores.amax(-1, keepdim=True)).exp().flatten(1, 2).unsqueeze(-1)
    y = (weights * values).sum(2) / weights.sum(2)
    return kept(y.unflatten(1, (form.tokens, -1)).transpose(0, 1).contiguous().view(form.tokens, -1))


def _norm(form: Form, x: Tensor) -> Tensor:
    """What RMSNorm multiplies each row with, but for its weight."""
    return torch.rsqrt((x * x).mean(-1, keepdim=True) + form.eps)
