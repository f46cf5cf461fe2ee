"""Compiled by torch.jit.script, which warns that it is old."""

import warnings

import torch
from torch import Tensor

with warnings.catch_warnings(action="ignore"):

    @torch.jit.script
    def silu(x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * torch.sigmoid(wide)).to(x.dtype)

    @torch.jit.script
    def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)
