"""Sizes at which kernels go wrong: at the blocks in which they work, beside them, and where an axis is very large.

    for sizes in around_blocks("rope"):
        case = Case(sizes, torch.float32, seed)

Two axes are large together as well: a kernel may be right for many queries and for many keys, and not for both.
"""

import itertools
import math
from collections.abc import Iterator

from tests.cases.calls import calls_of

SMALL = {
    "batch": 2,
    "seq": 3,
    "q_len": 3,
    "more": 2,
    "d_model": 5,
    "d_in": 5,
    "d_out": 7,
    "d_ff": 7,
    "n_kv_heads": 2,
    "groups": 2,
    "half": 2,
    "vocab": 11,
    "n": 5,
    "n_layers": 1,
    "count": 3,
}
"""The size of every other axis."""
AROUND = tuple(block + step for block in (32, 64, 128, 256) for step in (0, -1, 1))
"""A block and its neighbours."""
WIDTHS = (96, 160, 264, 384, 768, 1000, 1536, 2056)
"""Of rows that fill many vectors, though their number is no power of two."""
FEATURES = ("d_model", "d_in", "d_out", "d_ff", "half", "vocab", "n")
"""Axes along which a row lies."""
HEADS = ("batch", "n_kv_heads", "groups")
"""Axes along which all is alike: a kernel shares them out, and each costs as much as everything else."""
AROUND_HEADS = (32, 65)
PAIRS = ((32, 64), (65, 128), (129, 129))
"""Two axes at once: multiples with multiples, and with what is none."""
FEW = ("n_layers", "count")
"""Axes along which nothing is computed in blocks."""
LIMIT = 2**18
"""The product of all sizes, beyond which a pair is left out: it would take seconds."""


def small(layer: str) -> dict[str, int]:
    """The sizes of that layer, all small and most of them distinct."""
    return {axis: SMALL[axis] for axis in calls_of(layer).sizes.split()}


def around_blocks(layer: str) -> Iterator[dict[str, int]]:
    """Each axis of that layer at and around each block, then each pair of axes within a head."""
    axes = [axis for axis in calls_of(layer).sizes.split() if axis not in FEW]
    base = small(layer)
    for axis in axes:
        blocks = AROUND_HEADS if axis in HEADS else AROUND
        for size in blocks + (WIDTHS if axis in FEATURES else ()):
            yield _sized(base, {axis: size})
    inner = [axis for axis in axes if axis not in HEADS]
    for (first, second), (one, other) in itertools.product(itertools.combinations(inner, 2), PAIRS):
        sizes = _sized(base, {first: one, second: other})
        if math.prod(size or 1 for size in sizes.values()) <= LIMIT:
            yield sizes


def very_large(layer: str) -> Iterator[dict[str, int]]:
    """The sizes at which that layer alone is large: what its file says, with every other axis small."""
    base = small(layer)
    for large in calls_of(layer).very_large:
        yield {**base, **large}


def _sized(base: dict[str, int], large: dict[str, int]) -> dict[str, int]:
    """These sizes, where that of `half` is meant for head_dim and that of `more` for kv_len."""
    sizes = base | large
    if "half" in large:
        sizes["half"] = max(1, large["half"] // 2)
    if "more" in large:
        sizes["more"] = max(0, large["more"] - sizes["q_len"])
    elif "q_len" in large:
        sizes["more"] = 0
    return sizes
