"""One step of training: clip the gradients, then AdamW, by the functions of an implementation.

    optimizer = Optimizer(model, weight_decay=0.1)
    loss.backward()
    norm = optimizer.step(lr=3e-3)

With `muon`, the matrices within the layers are moved by torch.optim.Muon instead: it makes every singular
value of a step alike, so that no direction of a matrix waits for another. Embedding, head and norms stay
with AdamW.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
"""

import torch
from torch import Tensor, nn

from llama.model import Llama


class Optimizer:
    """Clipping and AdamW over all parameters of a model; the norms' weights do not decay.

    AdamW goes element by element, so all parameters of a kind are given to it as one long vector.
    """

    def __init__(
        self,
        model: Llama,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        max_norm: float = 1.0,
        muon: bool = False,
    ):
        self.model, self.layers = model, model.layers
        self.betas, self.eps, self.max_norm = betas, eps, max_norm
        self.step_count = 0
        parameters = dict(model.named_parameters())
        inner = [p for name, p in parameters.items() if muon and p.ndim > 1 and name.startswith("model.layers.")]
        self.muon = torch.optim.Muon(inner, weight_decay=weight_decay, momentum=0.95) if inner else None
        apart = {id(p) for p in inner}
        matrices = [p for p in parameters.values() if p.ndim > 1 and id(p) not in apart]
        # Decay pulls matrices towards zero; the weight of a norm has its rest at one.
        self.groups = [_Group(matrices, weight_decay), _Group([p for p in parameters.values() if p.ndim == 1], 0.0)]

    @torch.no_grad()
    def step(self, lr: float, muon_lr: float = 0.0) -> float:
        """Apply the gradients, clear them, and return their norm before clipping.

        Raises ValueError where a parameter has no gradient.
        """
        self.step_count += 1
        without = [name for name, p in self.model.named_parameters() if p.grad is None]
        if without:
            raise ValueError(f"train: no gradient reaches {without[0]}: a layer of {self.layers.name} keeps it back")
        inner = self.muon.param_groups[0]["params"] if self.muon else []
        gradients = [_together([p.grad for p in group.parameters]) for group in self.groups]
        clipped, norm = self.layers.clip_grad_norm([*gradients, *(p.grad for p in inner)], self.max_norm)
        for group, gradient in zip(self.groups, clipped, strict=False):
            new, *group.averages = self.layers.adamw(
                _together([p.data for p in group.parameters]),
                gradient,
                *group.averages,
                self.step_count,
                lr,
                self.betas,
                self.eps,
                group.decay,
            )
            _apart(new, group.parameters)
        if self.muon:
            for parameter, gradient in zip(inner, clipped[len(self.groups) :], strict=True):
                parameter.grad = gradient
            self.muon.param_groups[0]["lr"] = muon_lr
            self.muon.step()
        for parameter in self.model.parameters():
            parameter.grad = None
        return float(norm)


class _Group:
    """Parameters that are treated alike, and the averages of their gradients."""

    def __init__(self, parameters: list[nn.Parameter], decay: float):
        self.parameters, self.decay = parameters, decay
        self.averages = [torch.zeros_like(_together([p.data for p in parameters])) for _ in range(2)]


def _together(tensors: list[Tensor]) -> Tensor:
    """All elements in one vector, each tensor in the order of its memory: a matrix of the model column by column."""
    return torch.cat([t.T.reshape(-1) if t.ndim == 2 else t for t in tensors])


def _apart(vector: Tensor, parameters: list[nn.Parameter]) -> None:
    """Let the parameters be views of the vector that `_together` made of them."""
    parts = vector.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part.view(parameter.shape[::-1]).T if parameter.ndim == 2 else part
