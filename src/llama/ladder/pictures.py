"""The pictures on the ladder's page: how the losses fell, who looks at whom, how rope turns, what is near zero."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llama.ladder import drawings
from llama.ladder.climb import Climb, Ladder, build
from llama.ladder.web_page import Picture
from llama.model.language_model import LanguageModel
from llama.model.llama import Llama
from llama.text.windows import Windows
from llama.training.preparation import Prepared
from llama.training.trainer import next_token_loss

SEEN = 24
"""Characters in the maps of attention."""

CURVES = (
    "All rungs on the same batches. Watch where each one leaves the one before it, and distrust a line that falls far "
    "below the rest. A cross at the end of one is what that model is worth when it cannot see what it has to predict."
)
MAPS = (
    "Who looks at whom, the mean over the heads, after training. Without a mask each character may look at the one "
    "after it, which is the one it has to predict. With the mask the upper right half is empty: not small, but "
    "exactly zero."
)
ROTATIONS = (
    "Rope turns each pair of features by the position times a frequency of its own. The first pairs run round the "
    "circle and tell neighbours apart; the last hardly move and tell near from far. No pair changes its length."
)
BY_HAND = "The same training twice, with gradients by autograd (pale) and by hand (thin): one curve lies on the other."
GRADIENTS = (
    "The gradients of all parameters on one batch. The points are those by hand, the rings around them those by "
    "autograd; beside them, how far the two lie apart. Float32 has a spacing of one part in 10 to 20 million."
)
SIZES = (
    "Root mean square of each tensor and of its gradient on one batch, and the share of elements within a hundredth "
    "of that from zero; the first layer is dark, the last light. A bell curve has 0.8 percent there. What lies far "
    "above is idle: the rows of the embedding whose characters are not in the batch get no gradient at all."
)


def pictures(config: Ladder, climbs: Sequence[Climb], prepared: Prepared) -> list[Picture]:
    """The pictures of one climb of the ladder, each with what there is to see in it."""
    first = [c for c in climbs if c.seed == config.seeds[0]]
    shown = [
        Picture(
            [
                drawings.curves(
                    {c.rung.name: c.losses for c in first},
                    {c.rung.name: c.prefix_loss for c in first if c.leak.is_there},
                )
            ],
            CURVES,
        )
    ]
    text = prepared.splits[1][: min(SEEN, config.window)]
    maps = [
        drawings.attention_map(
            attention_weights(c, config, prepared, text[None])[0].mean(0).numpy(),
            prepared.tokenizer.decode(text),
            c.rung.name,
        )
        for c in first
        if c.rung.parts and c.rung.parts.attention and not c.rung.parts.swiglu
    ]
    if maps:
        shown.append(
            Picture(
                maps,
                MAPS,
            )
        )
    whole = [c for c in first if isinstance(c.model, Llama) and c.rung.tokenizer == "characters"]
    if (hand := next((c for c in whole if c.rung.recipe.get("by_hand")), None)) is not None:
        alike = {**hand.rung.recipe, "by_hand": False}
        if (same := next((c for c in whole if {"by_hand": False, **c.rung.recipe} == alike), None)) is not None:
            shown += _by_hand(hand, same, prepared, config)
    if whole:
        last = whole[-1]
        turns = last.model.layers.rotation_frequencies(last.model.config, torch.device("cpu")).numpy()
        shown.append(
            Picture(
                [drawings.circles(turns, config.window), drawings.turns(turns, config.window)],
                ROTATIONS,
            )
        )
        weights, gradients = _sizes(last.model, prepared, config)
        shown.append(
            Picture(
                [
                    drawings.by_layer(_by_kind(weights, _size), f"size of the weights ({last.rung.name})"),
                    drawings.by_layer(_by_kind(gradients, _size), "size of the gradients"),
                    drawings.by_layer(_by_kind(weights, _near_zero), "weights near zero", percent=True),
                    drawings.by_layer(_by_kind(gradients, _near_zero), "gradients near zero", percent=True),
                ],
                SIZES,
            )
        )
    return shown


def attention_weights(
    climb: Climb, config: Ladder, prepared: Prepared, token_ids: Int64[Tensor, "1 seq"]
) -> Float[Tensor, "1 n_heads seq seq"]:
    """The attention weights of a rung's (last) layer, seen by running it with an attention that writes them down."""
    seen: list[Tensor] = []
    layers = prepared.layers.completed()

    def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = True, mask: Tensor | None = None) -> Tensor:
        scores = q @ k.repeat_interleave(q.shape[1] // k.shape[1], dim=1).mT * q.shape[-1] ** -0.5
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -math.inf)
        seen.append(layers.softmax(scores))
        return layers.attention(q, k, v, causal, mask)

    watched = build(config, climb.rung, prepared.tokenizer.vocab, layers.replacing("watched", attention=attention), 0)
    watched.load_state_dict(climb.model.state_dict())
    with torch.no_grad():
        watched.to(prepared.device)(token_ids)
    return seen[-1].cpu()


def _by_hand(hand: Climb, same: Climb, prepared: Prepared, config: Ladder) -> list[Picture]:
    """Both ways to the gradients: the curves of training, and all gradients of one batch."""
    apart = max(abs(a - b) for a, b in zip(hand.losses, same.losses, strict=True))
    assert isinstance(hand.model, Llama)
    _, gradients = hand.model.gradients(*_batch(prepared, config))
    _, expected = _sizes(hand.model, prepared, config)
    differences = {name: gradients[name] - of for name, of in expected.items()}
    largest = {
        kind: {name: float(differences[name].abs().max() / expected[name].abs().max()) for name in of}
        for kind, of in _by_kind(expected, _size).items()
    }
    sizes, rings = _by_kind(gradients, _size), _by_kind(expected, _size)
    title = f"at most {apart:.0e} apart"
    curves = drawings.on_each_other({same.rung.name: same.losses, hand.rung.name: hand.losses}, title)
    panels = [
        drawings.by_layer(sizes, "size of the gradients (rings: autograd)", rings=rings),
        drawings.by_layer(largest, "largest difference / largest gradient"),
    ]
    return [Picture([curves], BY_HAND), Picture(panels, GRADIENTS)]


def _batch(prepared: Prepared, config: Ladder) -> tuple[Int64[Tensor, "batch seq"], Int64[Tensor, "batch seq"]]:
    """A batch of the training split that no step has seen."""
    return Windows(prepared.splits[0], config.window).batch(config.batch_size, 0, config.steps)


def _sizes(model: LanguageModel, prepared: Prepared, config: Ladder) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All weights, and their gradients on one batch of the training split."""
    loss = next_token_loss(model, *_batch(prepared, config))
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters)
    return dict(zip(names, (p.detach() for p in parameters), strict=True)), dict(zip(names, gradients, strict=True))


def _by_kind(tensors: Mapping[str, Tensor], number: Any) -> dict[str, dict[str, float]]:
    """A number of each tensor, by its kind (`q_proj`) and full name."""
    by_kind: dict[str, dict[str, float]] = {}
    for name, tensor in tensors.items():
        by_kind.setdefault(name.split(".")[-2], {})[name] = number(tensor)
    return by_kind


def _size(tensor: Tensor) -> float:
    return tensor.double().square().mean().sqrt().item()


def _near_zero(tensor: Tensor) -> float:
    return (tensor.abs() <= 0.01 * _size(tensor)).double().mean().item()
