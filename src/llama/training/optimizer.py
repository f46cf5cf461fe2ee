"""One step of training: clip the gradients, then AdamW, by the functions of an implementation.

    optimizer = Optimizer(model, weight_decay=0.1)
    loss.backward()
    norm = optimizer.step(lr=3e-3)

Where AdamW is our `fused`, weights and averages are moved in place, as torch's optimizers do, and who shares their
memory sees it: new tensors of all of them would take several times as long as the step itself.

With `muon`, the matrices within the layers are moved by Muon instead: it makes the singular values of a step
nearly alike, so that no direction of a matrix waits for another. Embedding, head and norms stay with AdamW.
"""

import itertools
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from llama.model.language_model import LanguageModel


class Optimizer:
    """Clipping and AdamW over all parameters of a model; the norms' weights do not decay.

    AdamW goes element by element, so all parameters of a kind are given to it as one long vector.
    """

    def __init__(
        self,
        model: LanguageModel,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        max_norm: float = 1.0,
        muon: bool = False,
    ):
        self.model, self.layers = model, model.layers
        self.adamw_in_place = model.layers.adamw_in_place
        self.betas, self.eps, self.max_norm = betas, eps, max_norm
        self.step_count = 0
        parameters = dict(model.named_parameters())
        inner = [p for name, p in parameters.items() if muon and p.ndim > 1 and name.startswith("model.layers.")]
        self.muon = Muon(inner, weight_decay)
        apart = {id(p) for p in inner}
        matrices = [p for p in parameters.values() if p.ndim > 1 and id(p) not in apart]
        # Decay pulls matrices towards zero; the weight of a norm has its rest at one.
        norms = [p for p in parameters.values() if p.ndim == 1]
        self.groups = [_Group(*group) for group in ((matrices, weight_decay), (norms, 0.0)) if group[0]]

    @torch.no_grad()
    def step(self, lr: float, muon_lr: float = 0.0) -> float:
        """Apply the gradients, clear them, and return their norm before clipping.

        Raises ValueError where a parameter has no gradient.
        """
        without = [name for name, p in self.model.named_parameters() if p.grad is None]
        if without:
            raise ValueError(f"train: no gradient reaches {without[0]}: a layer of {self.layers.name} keeps it back")
        self.step_count += 1
        parameters = [p for group in self.groups for p in group.parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        clipped, norm = self.layers.clip_grad_norm([*gradients, *self.muon.gradients()], self.max_norm)
        rest = iter(clipped)
        for group in self.groups:
            mine = list(itertools.islice(rest, len(group.parameters)))
            how = self.step_count, lr, self.betas, self.eps, group.decay
            if self.adamw_in_place and group.is_plain:
                exp_avgs, exp_avg_sqs = (_parts(average, group.parameters) for average in group.averages)
                self.adamw_in_place([p.data for p in group.parameters], mine, exp_avgs, exp_avg_sqs, *how)
            else:
                weights = _together([p.data for p in group.parameters])
                new, *group.averages = self.layers.adamw(weights, _together(mine), *group.averages, *how)
                _apart(new, group.parameters)
        self.muon.step(list(rest), muon_lr, self.model.compute_dtype or torch.float32)
        for parameter in self.model.parameters():
            parameter.grad = None
        return float(norm)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on beside weights and gradients; the averages themselves, not copies.

        `adamw` are the averages of a group's parameters as one vector, `muon` those of the matrices of one shape.
        """
        named = {"optimizer.step_count": torch.tensor(self.step_count)}
        for i, group in enumerate(self.groups):
            for kind, average in zip(("exp_avg", "exp_avg_sq"), group.averages, strict=True):
                named[f"optimizer.adamw.{i}.{kind}"] = average
        return named | {f"optimizer.muon.{i}.momentum": average for i, average in enumerate(self.muon.averages)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state` of the same model, after its weights have been loaded."""
        for name, average in self.state().items():
            average.copy_(state[name])
        self.step_count = int(state["optimizer.step_count"])
        if self.step_count and not self.adamw_in_place:
            # The memory that a step leaves: where a vector begins may decide in which order a product is summed.
            for group in self.groups:
                _apart(_together([p.data for p in group.parameters]), group.parameters)


class _Group:
    """Parameters that are treated alike, and the averages of their gradients."""

    def __init__(self, parameters: list[nn.Parameter], decay: float):
        self.parameters, self.decay = parameters, decay
        self.averages = [torch.zeros_like(_together([p.data for p in parameters])) for _ in range(2)]

    @property
    def is_plain(self) -> bool:
        """Whether all lie in memory row by row, in the dtype of their averages."""
        return all(p.is_contiguous() and p.dtype == self.averages[0].dtype for p in self.parameters)


def _together(tensors: list[Tensor]) -> Tensor:
    """All elements in one vector."""
    return torch.cat([t.reshape(-1) for t in tensors])


def _apart(vector: Tensor, parameters: list[nn.Parameter]) -> None:
    """Let the parameters be views of the vector that `_together` made of them."""
    for parameter, part in zip(parameters, _parts(vector, parameters), strict=True):
        parameter.data = part


def _parts(vector: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """The vector as views, one in the shape of each parameter."""
    parts = vector.split([p.numel() for p in parameters])
    return [part.view(parameter.shape) for parameter, part in zip(parameters, parts, strict=True)]


class Muon:
    """Momentum, and then the nearest matrix whose singular values are all about one.

        momentum <- 0.95 · momentum + 0.05 · grad
        step      = orthogonal(0.95 · momentum + 0.05 · grad)
        param    <- param - lr · weight_decay · param - lr · sqrt(max(1, d_out / d_in)) · step

    `orthogonal` by five Newton-Schulz iterations, in the dtype that the layers compute in. In bfloat16 the same as
    torch.optim.Muon, but all matrices of one shape go through it as one stack: one by one, small ones take several
    times as long.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """

    def __init__(self, parameters: list[nn.Parameter], weight_decay: float, momentum: float = 0.95):
        self.weight_decay, self.momentum = weight_decay, momentum
        shapes = sorted({tuple(p.shape) for p in parameters})
        self.stacks = [[p for p in parameters if p.shape == shape] for shape in shapes]
        self.averages = [torch.zeros_like(torch.stack([p.data for p in stack])) for stack in self.stacks]

    def gradients(self) -> list[Tensor]:
        """The gradients of each stack [matrices d_out d_in]."""
        return [torch.stack([p.grad for p in stack if p.grad is not None]) for stack in self.stacks]

    def step(self, gradients: list[Tensor], lr: float, dtype: torch.dtype) -> None:
        for stack, average, gradient in zip(self.stacks, self.averages, gradients, strict=True):
            average.lerp_(gradient, 1 - self.momentum)
            step = _orthogonal(gradient.lerp(average, self.momentum).to(dtype))
            d_out, d_in = stack[0].shape
            rate = lr * math.sqrt(max(1, d_out / d_in))
            for parameter, by in zip(stack, step, strict=True):
                parameter.data.mul_(1 - lr * self.weight_decay).add_(by, alpha=-rate)


def _orthogonal(matrices: Tensor) -> Tensor:
    """The matrices [n rows columns] with their singular values brought to about one."""
    if matrices.shape[1] > matrices.shape[2]:
        return _orthogonal(matrices.mT).mT
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x
