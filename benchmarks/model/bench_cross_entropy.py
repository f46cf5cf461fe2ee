"""Cross-entropy: the logits are read once; their gradient is as large as they are."""

from torch import nn

from benchmarks.cases import layer


def torch_nn(logits, targets):
    module = nn.CrossEntropyLoss()
    return lambda: module(logits.flatten(0, -2), targets.flatten())


bench_cross_entropy = layer(
    "cross_entropy",
    along="vocab",
    sizes=(64, 512, 4096, 16384),
    others={"batch": 1, "seq": 256},
    moved=lambda c: c.seq * c.vocab,
    backward=2,
    naive=512,
    peers={"torch.nn": torch_nn},
)
