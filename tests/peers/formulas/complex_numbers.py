"""Rotations as products of complex numbers."""

import torch


def rope(x, positions, frequencies):
    """A pair is a complex number, and a turn is a product with exp(i · angle)."""
    angles = positions[..., None].double() * frequencies
    angles = angles if angles.ndim == 2 else angles[:, None]
    real, imaginary = x.double().chunk(2, dim=-1)
    turned = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), dim=-1).to(x.dtype)
