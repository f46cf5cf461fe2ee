"""What the ladder reports: a table, and a page with pictures and samples."""

import json
import math
from collections.abc import Mapping, Sequence
from statistics import mean, pstdev
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llama import page, plots
from llama.evaluation import ROUNDING
from llama.layers.llama import frequencies
from llama.model import LanguageModel, Llama
from llama.original import READ_AT, Course
from llama.page import Entry, Picture, Row, Section, Table
from llama.train import Prepared, next_token_loss

if TYPE_CHECKING:  # the ladder calls this module, and is what it is about
    from llama.ladder import Climb, Ladder

COLUMNS = (
    "rung",
    "parameters",
    "train",
    "validation",
    "test",
    "prefix only",
    "leak",
    "choosing among",
    "tokens/s",
)
SEEN = 24
"""Characters in the maps of attention."""

LEGEND = (
    "Prefix only: the validation loss when each position is computed from its own prefix alone. Leak: the parallel "
    f"loss minus that, measured on windows all over the split; beyond {ROUNDING:.0e}, which is rounding, the model "
    "reads the future. Choosing among: the number of characters among which one would have to guess evenly for the "
    "prefix-only loss, e to its power. Losses are means over whole splits, but that of training is taken over as much "
    "text as the validation split has."
)
CURVES = (
    "All rungs on the same batches. Watch where each one leaves the one before it, and distrust a line that falls far "
    "below the rest: the cross at its end is what that model is worth when it cannot see what it has to predict."
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
SIZES = (
    "Root mean square of each tensor and of its gradient on one batch, and the share of elements within a hundredth "
    "of that from zero; the first layer is dark, the last light. A bell curve has 0.8 percent there. What lies far "
    "above is idle: the rows of the embedding whose characters are not in the batch get no gradient at all."
)


def write(config: "Ladder", climbs: Sequence["Climb"], prepared: Prepared, course: Course | None = None) -> None:
    """Print the table, and that of the original where it was trained; write index.html and ladder.json."""
    corpus = prepared.corpus
    table = rungs_table(climbs)
    print(f"\nCorpus {corpus.name}, {config.steps} steps of {config.batch_size} windows of {config.window} characters")
    print(
        f"Layers of {prepared.layers.name}, seeds {', '.join(map(str, config.seeds))}; losses in nats per character\n"
    )
    print(table)
    if corpus.floor is not None:
        print(f"\nThe entropy of the text is {corpus.floor:.4f}: nothing honest lies below it.")
    print(f"\n{LEGEND}")
    if leaking := {c.rung.name for c in climbs if c.leak.is_there}:
        print(f"These read the future: {', '.join(sorted(leaking))}.")
    config.out.mkdir(parents=True, exist_ok=True)
    numbers = [_numbers(c) for c in climbs]
    (config.out / "ladder.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    introduction = [
        f"From a model that one can trust at sight to Llama, one change at a time. Every rung was trained on the same "
        f"batches of {corpus.name}: {config.steps} steps of {config.batch_size} windows of {config.window} characters, "
        f"seeds {', '.join(map(str, config.seeds))}, by the layers of {prepared.layers.name}."
    ]
    sections = [
        Section("The rungs", [LEGEND], table),
        Section("What to see", figures=list(_pictures(config, climbs, prepared))),
        Section("Rung by rung", entries=[_entry(c) for c in climbs if c.seed == config.seeds[0]]),
    ]
    if course is not None:
        sections.append(_originals_section(course))
        print(f"\n{sections[-1].title}\n\n{sections[-1].table}\n")
    page.write(config.out / "index.html", "The ladder from a baseline to Llama", introduction, sections)
    print(f"Written: {config.out / 'index.html'}, {config.out / 'ladder.json'}")


def _originals_section(course: Course) -> Section:
    """The original's losses as it reports them, and from prefixes alone."""
    readings = course.readings
    rows = [
        Row((f"{r.step:,}", f"{r.train:.3f}", f"{r.validation:.3f}", f"{r.prefix:.3f}"))
        for r in readings
        if r.step in READ_AT
    ]
    drawn = plots.parting([r.step for r in readings], [r.validation for r in readings], [r.prefix for r in readings])
    return Section(
        "The tutorial's last model, as it was",
        [
            "Llama from scratch ends with a model whose norm is taken over a whole sequence, so that each position "
            "carries something of those after it. Trained as it was, its validation loss falls and falls; computed "
            "from prefixes alone it falls, and then rises.",
            "No training is needed to find this out: before the first step its parallel loss is "
            f"{course.untrained.parallel:.4f} and its prefix-only loss {course.untrained.prefix:.4f}, where a model "
            "that keeps to the past has the same twice.",
        ],
        Table(("step", "train", "validation as reported", "prefix-only validation"), rows),
        [Picture([drawn], "One model, one training: the loss that it reports, and the loss that it has.")],
    )


def rungs_table(climbs: Sequence["Climb"]) -> Table:
    """A row for each rung; with several seeds means, and the standard deviation beside each loss."""
    rows = []
    for rung in dict.fromkeys(c.rung for c in climbs):
        same = [c for c in climbs if c.rung == rung]
        losses = [[getattr(c, f"{name}_loss") for c in same] for name in ("train", "validation", "test", "prefix")]
        leak = max((c.leak.difference for c in same), key=abs)
        cells = (
            rung.name,
            f"{same[0].parameters:,}",
            *map(with_spread, losses),
            f"{leak:+.1e}" if abs(leak) <= ROUNDING else f"{leak:+.3f}",
            f"{math.exp(mean(losses[-1])):.1f}",
            f"{mean(c.tokens_per_second for c in same):,.0f}",
        )
        rows.append(Row(cells, leaks=any(c.leak.is_there for c in same)))
    return Table(COLUMNS, rows)


def with_spread(values: Sequence[float]) -> str:
    """The mean, and the standard deviation where there are several."""
    return f"{mean(values):.3f}" + (f" ± {pstdev(values):.3f}" if len(values) > 1 else "")


def _numbers(climb: "Climb") -> dict[str, Any]:
    return {
        "rung": climb.rung.name,
        "seed": climb.seed,
        "parameters": climb.parameters,
        "train_loss": climb.train_loss,
        "validation_loss": climb.validation_loss,
        "test_loss": climb.test_loss,
        "prefix_loss": climb.prefix_loss,
        "leak": climb.leak.difference,
        "tokens_per_second": climb.tokens_per_second,
        "sample": climb.sample,
        "losses": climb.losses,
    }


def _entry(climb: "Climb") -> Entry:
    return Entry(climb.rung.name, [climb.rung.change, climb.rung.see], climb.sample)


def _pictures(config: "Ladder", climbs: Sequence["Climb"], prepared: Prepared) -> Sequence[Picture]:
    first = [c for c in climbs if c.seed == config.seeds[0]]
    pictures = [
        Picture(
            [
                plots.curves(
                    {c.rung.name: c.losses for c in first},
                    {c.rung.name: c.prefix_loss for c in first if c.leak.is_there},
                )
            ],
            CURVES,
        )
    ]
    text = prepared.splits[1][: min(SEEN, config.window)]
    maps = [
        plots.attention_map(
            attention_weights(c, config, prepared, text[None])[0].mean(0).numpy(),
            prepared.tokenizer.decode(text),
            c.rung.name,
        )
        for c in first
        if c.rung.parts and c.rung.parts.attention and not c.rung.parts.swiglu
    ]
    if maps:
        pictures.append(
            Picture(
                maps,
                MAPS,
            )
        )
    if (last := next((c for c in reversed(first) if isinstance(c.model, Llama)), None)) is not None:
        turns = frequencies(last.model.layers, last.model.config, torch.device("cpu")).numpy()
        pictures.append(
            Picture(
                [plots.circles(turns, config.window), plots.turns(turns, config.window)],
                ROTATIONS,
            )
        )
        weights, gradients = _sizes(last.model, prepared, config)
        pictures.append(
            Picture(
                [
                    plots.by_layer(_by_kind(weights, _size), f"size of the weights ({last.rung.name})"),
                    plots.by_layer(_by_kind(gradients, _size), "size of the gradients"),
                    plots.by_layer(_by_kind(weights, _near_zero), "weights near zero", percent=True),
                    plots.by_layer(_by_kind(gradients, _near_zero), "gradients near zero", percent=True),
                ],
                SIZES,
            )
        )
    return pictures


def attention_weights(
    climb: "Climb", config: "Ladder", prepared: Prepared, token_ids: Int64[Tensor, "1 seq"]
) -> Float[Tensor, "1 n_heads seq seq"]:
    """The attention weights of a rung's (last) layer, seen by running it with an attention that writes them down."""
    from llama.ladder import build

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


def _sizes(model: LanguageModel, prepared: Prepared, config: "Ladder") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All weights, and their gradients on one batch of the training split."""
    from llama.data import Windows

    loss = next_token_loss(model, *Windows(prepared.splits[0], config.window).batch(config.batch_size, 0, config.steps))
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
