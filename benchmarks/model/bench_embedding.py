"""Embedding: rows are copied; the gradient fills a table as large as the weights, however few are looked up."""

from torch import nn

from benchmarks.cases import layer, loaded


def torch_nn(token_ids, weight):
    module = loaded(lambda: nn.Embedding(*weight.shape), weight=weight)
    return lambda: module(token_ids)


bench_embedding = layer(
    "embedding",
    along="seq",
    sizes=(16, 128, 1024, 8192),
    others={"batch": 1, "vocab": 8192, "d_model": 512},
    moved=lambda c: 2 * c.seq * c.d_model,
    naive=1024,
    peers={"torch.nn": torch_nn},
)
