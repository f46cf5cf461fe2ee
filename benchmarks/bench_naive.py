"""The loops beside `vectorized`, for all layers at one size: 2 sequences of 64 tokens, 64 features.

Layers that know neither of sequences nor of features are left out; those of the
optimizer get the weights of one matrix of that size, or of eight.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from benchmarks.cases import FORWARD, Cell, benchmark_of, layer
from benchmarks.report import LOOPS
from llama.implementation import Implementation
from llama.layers import LAYERS
from tests.cases import calls
from tests.cases.calls import Arguments
from tests.cases.case import Case

SEQ = D_MODEL = 64
SIZES = {
    "batch": 2,
    "q_len": SEQ,
    "more": 0,
    "d_model": D_MODEL,
    "d_in": D_MODEL,
    "d_out": D_MODEL,
    "n": D_MODEL,
    "d_ff": 172,
    "n_kv_heads": 2,
    "groups": 2,
    "half": 8,
    "vocab": 65,
    "n_layers": 1,
}
WITHOUT = ("rope_frequencies", "llama3_frequencies", "cosine_schedule")
MATRICES = 8
ROUNDS = 3


def adamw(case: Case) -> Arguments:
    return calls.arguments("adamw", replace(case, sizes=case.sizes | {"batch": D_MODEL}))


def clip_grad_norm(case: Case) -> Arguments:
    return ([case.normal("d_in d_out") for _ in range(MATRICES)], 1.0), {}


def naive_cells(columns: Sequence[Implementation]) -> Iterator[Cell]:
    loops = [i for i in columns if i.name in ("naive", "vectorized")]
    for name in LAYERS:
        if name in WITHOUT:
            continue
        own = {"adamw": adamw, "clip_grad_norm": clip_grad_norm}.get(name)
        bench = layer(name, "seq", (SEQ,), SIZES, naive=SEQ, arguments=own, dtypes=(torch.float32,))
        for cell in bench.cells(loops):
            if cell.passes == FORWARD:
                few = {"rounds": ROUNDS, "warm_up": False} if cell.column == "naive" else {}
                yield replace(cell, layer=LOOPS, passes=name, memory=False, **few)


bench_naive = benchmark_of(naive_cells)
