"""Compiled by torch.compile: as what it traces, as what autograd makes of that, and, with a compiler, as a program."""

import shutil

import torch

from tests.peers.formulas import other_formulas

softmax = torch.compile(other_formulas.softmax, backend="eager", dynamic=True)
rms_norm = torch.compile(other_formulas.rms_norm, backend="aot_eager", dynamic=True)
silu = torch.compile(other_formulas.silu, backend="inductor" if shutil.which("c++") else "aot_eager", dynamic=True)
