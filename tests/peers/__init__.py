"""Right implementations that look nothing like ours, and that the suite must therefore leave green.

A suite can be wrong in two ways: it lets a bug pass (tests/zoo), or it alarms on right code (here). Each peer is a
plain module that defines layers by name, so that `pytest --impl tests.peers.formulas.einsum` tests one;
`pytest --peers` tests them all. One peer imports another as a module: a layer imported by its name would count
as its own.

Where a package differs from the contract on purpose, the difference is named beside it and taken out, or the layer is
left out.
"""

from llama import implementation
from llama.implementation import Implementation

PEERS: tuple[str, ...] = (
    "tests.peers.formulas.large_sizes",
    "tests.peers.formulas.complex_numbers",
    "tests.peers.formulas.rotation_matrices",
    "tests.peers.formulas.online_softmax",
    "tests.peers.formulas.attention_in_parts",
    "tests.peers.formulas.einsum",
    "tests.peers.formulas.merged_weights",
    "tests.peers.formulas.other_formulas",
    "tests.peers.formulas.by_numpy",
    "tests.peers.formulas.float64_within",
    "tests.peers.formulas.gradients_by_autograd",
    "tests.peers.formulas.gradients_by_func",
    "tests.peers.formulas.tiled_gradient",
    "tests.peers.formulas.byte_pairs",
    "tests.peers.libraries.torch_kernels",
    "tests.peers.libraries.torch_decomposed",
    "tests.peers.libraries.torch_nn",
    "tests.peers.libraries.torch_optim",
    "tests.peers.libraries.transformers_llama",
    "tests.peers.forms.callables",
    "tests.peers.forms.by_vmap",
    "tests.peers.forms.own_backward",
    "tests.peers.forms.noisy",
    "tests.peers.forms.numpy_numbers",
    "tests.peers.forms.tensor_numbers",
    "tests.peers.forms.copied_arguments",
    "tests.peers.forms.table_of_angles",
)
COMPILED = ("tests.peers.forms.compiled", "tests.peers.forms.scripted")
"""Those that take seconds to begin; `pytest --peers` waits for them."""


def everything(compiled: bool = True) -> list[Implementation]:
    """Each peer by its short name, and without a source: nobody practises on it, so it has no board."""
    names = PEERS + (COMPILED if compiled else ())
    return [Implementation(name.rpartition(".")[2], implementation.load(name).layers) for name in names]
