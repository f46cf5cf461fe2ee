"""What several cheats need."""

import torch


def right(x):
    """SiLU as it should be."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * wide.sigmoid()).to(x.dtype)


def wrong(x):
    """No SiLU at all."""
    return x.relu()
