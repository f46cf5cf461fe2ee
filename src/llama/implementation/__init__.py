"""An implementation is a named set of layer functions: ours, or anybody's.

    layers = implementation.load("fused")            # naive, vectorized or fused: all layers
    layers = implementation.load("my_llama")         # a dotted module, a .py file or a folder of them
    layers.rms_norm(x, weight)                       # torch in, torch out
    layers.completed("vectorized")                   # what it lacks, taken from another

A file, module or folder must define at least one layer by its name. In a folder, `rms_norm.py` is asked
first for `rms_norm`, then any other file. Layers that are not defined are simply not there. A file may import
what lies beside it: `from kernels_common import block`.

Read in this order:

    layer_set.py    Implementation and load
    lookup.py       the layers that a name leads to: modules, files, folders
    source.py       what the text of a file defines
    recognition.py  what is nearly a layer, and the line that makes it one
    neighbours.py   files that import what lies beside them
    claims.py       what an author claims of layers, and leaves out
    arrays.py       the naive layers, which are NumPy, as layers over tensors

Imports the layers and their contract. Models, tests and benchmarks reach layers through it.
"""

from llama.implementation.arrays import Layer, map_leaves, tensors
from llama.implementation.claims import Claims
from llama.implementation.layer_set import OURS, Implementation, composed, load
from llama.implementation.lookup import ImplementationError

__all__ = [
    "OURS",
    "Claims",
    "Implementation",
    "ImplementationError",
    "Layer",
    "composed",
    "load",
    "map_leaves",
    "tensors",
]
