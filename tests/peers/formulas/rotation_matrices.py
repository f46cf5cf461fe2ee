"""Rotations as products with matrices."""

import torch

from tests.peers.formulas._shared import widened


def rope(x, positions, frequencies):
    """Each pair is multiplied with a 2 x 2 matrix of its own."""
    positions = positions.expand(x.shape[0], x.shape[2])
    angles = positions[..., None].to(frequencies.dtype) * frequencies
    cos, sin = angles.cos(), angles.sin()
    matrices = torch.stack((torch.stack((cos, -sin), dim=-1), torch.stack((sin, cos), dim=-1)), dim=-2)
    pairs = widened(x).unflatten(-1, (2, frequencies.shape[0]))
    with torch.autocast(x.device.type, enabled=False):  # a turn is no product of the contract
        return torch.einsum("bsfij,bhsjf->bhsif", matrices.to(pairs.dtype), pairs).flatten(-2).to(x.dtype)
