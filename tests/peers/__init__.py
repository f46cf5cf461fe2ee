"""Right implementations that look nothing like ours, and that the suite must therefore leave green.

A suite can be wrong in two ways: it lets a bug pass (tests/zoo), or it alarms on right code (here). Each peer is a
plain module that defines layers by name, so that `pytest --impl tests.peers.einsum` tests one; `pytest --peers`
tests them all. One peer imports another as a module: a layer that it imported by its name would count as its own.

Where a package differs from the contract on purpose, the difference is named beside it and taken out, or the layer is
left out.
"""

from llama import implementation
from llama.implementation import Implementation

PEERS: tuple[str, ...] = (
    "tests.peers.large_sizes",
    "tests.peers.complex_numbers",
    "tests.peers.rotation_matrices",
    "tests.peers.online_softmax",
    "tests.peers.einsum",
    "tests.peers.merged_weights",
    "tests.peers.other_formulas",
    "tests.peers.by_numpy",
    "tests.peers.float64_within",
    "tests.peers.torch_nn",
    "tests.peers.torch_optim",
    "tests.peers.transformers_llama",
)


def everything() -> list[Implementation]:
    """Each peer by its short name, and without a source: nobody practises on it, so it has no board."""
    return [Implementation(name.rpartition(".")[2], implementation.load(name).layers) for name in PEERS]
