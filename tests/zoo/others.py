"""How others judge these layers, as data: the sizes, dtypes, tolerances and directions of published test suites.

`pytest --zoo --as liger` asks which bugs of the zoo would pass such a suite. Each check names the file and the test it
is taken from, in the repository and at the commit of its suite. Nothing but facts is taken: the calls are made anew, by
`Case`, and compared with `vectorized` (tests/session/showing/others.py).

Where a suite tests several parameters in all combinations, `each` keeps every value of each, but not every combination.
A tensor that would have more than LARGEST elements is cut along the axes that `Check.cut` names, which are rows that
the layer treats alike, but not below two of them. Where a choice was left, it is the stricter one: a suite that hands
the kernel finished cosines is given credit for the angles, too.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests.cases import calls, target
from tests.cases.calls import Arguments, positional
from tests.cases.case import Case
from tests.cases.weights import config, frequencies, layer_weights, model_weights

Layer = Callable[..., Any]
Sizes = Mapping[str, int]
Tolerance = tuple[float, float]
"""Absolute and relative: an element may differ by `atol + rtol · |expected|`."""

LARGEST = 2**18
"""So many elements in one tensor, or a check would take minutes on a CPU."""
HALF, BFLOAT, SINGLE, DOUBLE = torch.float16, torch.bfloat16, torch.float32, torch.float64


@dataclass(frozen=True)
class Check:
    """One test of one layer."""

    layer: str
    source: str
    """The file and the test, in the repository of the suite."""
    arguments: Callable[[Case], Arguments]
    sizes: Sequence[Sizes]
    within: Mapping[torch.dtype, Tolerance]
    """The tolerance for each dtype that is tested."""
    gradients: bool = False
    """Whether gradients are compared, with the same tolerance."""
    upstream: float = 1.0
    """The deviation of the gradient from above, which is 1 itself where the result is a number."""
    cut: Mapping[str, str] = field(default_factory=dict)
    """The axes that may be shortened, the first one first, each with the axes of the tensor that becomes smaller."""
    call: Callable[..., Any] = lambda layer, *args, **kwargs: layer(*args, **kwargs)
    """What is made of the layer and the arguments, where it is not one call."""
    plain: Layer | None = None
    """The straightforward computation in the same dtype. Where there is one, no element is compared by itself: the
    largest error, from the result in float32, may be `times` that of this computation, plus atol."""
    times: tuple[float, float] = (2.0, 2.0)
    """For the result and for the gradients."""
    differences: bool = False
    """Whether the gradients are compared with the layer's own numerical differences, as torch's gradcheck does."""
    layout: str = "contiguous"

    def cases(self, seeds: int) -> Iterator[Case]:
        """Its calls, the smallest sizes first, since a bug is given up after its first failure."""
        for sizes in sorted(self.sizes, key=lambda sizes: math.prod(sizes.values())):
            for dtype in self.within:
                for seed in range(seeds):
                    yield Case(self._fitting(sizes), dtype, seed, self.layout)

    def _fitting(self, sizes: Sizes) -> dict[str, int]:
        fitting = Case(dict(sizes), SINGLE, 0).sizes
        for axis, of in self.cut.items():
            others = math.prod(fitting[name] for name in of.split() if name != axis)
            fitting = Case(fitting | {axis: min(fitting[axis], max(2, LARGEST // others))}, SINGLE, 0).sizes
        return fitting


@dataclass(frozen=True)
class Suite:
    """What one project tests."""

    title: str
    repository: str
    commit: str
    checks: Sequence[Check]
    seeds: int = 1
    """Random inputs for each size and dtype."""
    compares_dtypes: bool = True
    left_out: str = field(default="", kw_only=True)
    """What it tests of these layers that has no place here."""

    @property
    def layers(self) -> list[str]:
        return list(dict.fromkeys(check.layer for check in self.checks))


def each(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """As many combinations as the longest list has values, so that each value of each list occurs; a list whose
    length divides another's goes on by one whenever it starts again, so as not to keep the same company."""
    longest = max(map(len, values.values()))
    return [{name: of[(i + i // len(of)) % len(of)] for name, of in values.items()} for i in range(longest)]


def grid(**values: Sequence[int]) -> list[dict[str, int]]:
    """All combinations."""
    combinations: list[dict[str, int]] = [{}]
    for name, of in values.items():
        combinations = [sizes | {name: value} for sizes in combinations for value in of]
    return combinations


# The calls. Where no other distribution is named, all floats are normally distributed, with deviation 1.


def leading(case: Case) -> list[int]:
    """The axes before the last one, of which a suite may have none."""
    return [case.sizes[axis] for axis in ("batch", "seq", "rows") if axis in case.sizes]


def normal(case: Case) -> Arguments:
    return positional(case.normal([*leading(case), case.n]))


def uniform(low: float, high: float) -> Callable[[Case], Arguments]:
    return lambda case: positional(case.uniform([*leading(case), case.n], low, high))


def cross_entropy(case: Case) -> Arguments:
    return positional(case.normal([*leading(case), case.vocab]), case.integers(leading(case), case.vocab))


def cross_entropy_of_uniform(low: float, high: float) -> Callable[[Case], Arguments]:
    def arguments(case: Case) -> Arguments:
        logits = case.uniform([*leading(case), case.vocab], low, high)
        return positional(logits, case.integers(leading(case), case.vocab))

    return arguments


def rms_norm(eps: float, weight: str, scaled: bool = False) -> Callable[[Case], Arguments]:
    def arguments(case: Case) -> Arguments:
        x = case.normal([*leading(case), case.d_model], 1 / (2 * case.d_model) if scaled else 1.0)
        drawn = {"ones": 0.0, "near one": 0.1, "normal": 1.0}[weight]
        mean = 0.0 if weight == "normal" else 1.0
        return positional(x, case.normal("d_model", drawn) + mean, eps)

    return arguments


def rope(positions: Callable[[Case], Tensor]) -> Callable[[Case], Arguments]:
    def arguments(case: Case) -> Arguments:
        return positional(case.normal("batch n_heads seq head_dim"), positions(case), frequencies(case))

    return arguments


def in_order(case: Case) -> Tensor:
    return target.tensor(torch.arange(case.seq))


def attention(
    causal: bool | None = None, uniform: tuple[float, float] | None = None, masked: bool = False
) -> Callable[[Case], Arguments]:
    """`causal` is one of the sizes, 0 or 1, where it is not given."""

    def arguments(case: Case) -> Arguments:
        axes = ("batch n_heads q_len head_dim", *2 * ["batch n_kv_heads kv_len head_dim"])
        q, k, v = (case.uniform(of, *uniform) if uniform else case.normal(of) for of in axes)
        mask = case.booleans("batch n_heads q_len kv_len") if masked else None
        return (q, k, v), {"causal": bool(case.causal) if causal is None else causal, "mask": mask}

    return arguments


def plain_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, mask: None = None) -> Tensor:
    """Every step in the dtype of q, as the straightforward code in half precision is."""
    groups, (q_len, kv_len) = q.shape[1] // k.shape[1], (q.shape[2], k.shape[2])
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = q @ (k * q.shape[-1] ** -0.5).mT
    seen = torch.ones(q_len, kv_len, dtype=torch.bool).tril(kv_len - q_len if causal else kv_len)
    scores = scores.masked_fill(~seen, -torch.inf)
    return scores.softmax(-1).masked_fill(~seen.any(-1, keepdim=True), 0.0) @ v


def plain_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Every step in the dtype of x."""
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def swiglu(case: Case) -> Arguments:
    """Weights with deviation 1 too, so results are some hundred times as large as x."""
    return positional(*(case.normal(axes) for axes in ("batch seq d_model", "d_ff d_model", "d_ff d_model", DOWN)))


DOWN = "d_model d_ff"


def layers_of_model(case: Case) -> Arguments:
    weights = layer_weights(case)
    x, heads = case.normal("batch seq d_model"), (case.n_heads, case.n_kv_heads)
    return positional(x, weights, *heads, in_order(case), frequencies(case), 1e-5)


def self_attention(case: Case) -> Arguments:
    weights = layer_weights(case)
    projections = [weights[f"self_attn.{name}_proj.weight"] for name in "qkvo"]
    x, heads = case.normal("batch seq d_model"), (case.n_heads, case.n_kv_heads)
    return positional(x, *projections, *heads, in_order(case), frequencies(case))


def model(case: Case) -> Arguments:
    of = config(case, tie_word_embeddings=False)
    return positional(case.integers("batch seq", case.vocab), model_weights(case, of), of)


def moved_up_by_100(layer: Layer, x: Tensor) -> list[Tensor]:
    return [layer(x), layer(x + 100)]


def a_thousand_times_as_large(layer: Layer, logits: Tensor, targets: Tensor) -> list[Tensor]:
    return [layer(logits, targets), layer(1000 * logits, targets)]


def a_thousand_steps(layer: Layer, param: Tensor, inputs: Tensor) -> Tensor:
    """A linear layer learns (x0 + x1, -x2) from x."""
    average = square = torch.zeros_like(param)
    for step, x in enumerate(inputs, 1):
        target_of = torch.stack((x[0] + x[1], -x[2]))
        gradient = -2 * torch.outer(target_of - param @ x, x)
        param, average, square = layer(param, gradient, average, square, step, 1e-3, (0.9, 0.999), 1e-8, 0.01)
    return param


def twenty_five_steps(layer: Layer, *schedule: float) -> list[float]:
    return [layer(step, *schedule) for step in range(25)]


def clipped(layer: Layer, grads: list[Tensor], max_norm: float) -> list[Tensor]:
    return list(layer(grads, max_norm)[0])


LIGER = Suite(
    "Liger-Kernel",
    "linkedin/Liger-Kernel",
    "ead96b618e5c67bddc6a6e9bcb99bfe6b5ab661c",
    (
        Check(
            "softmax",
            "test/transformers/test_softmax.py: test_liger_softmax",
            normal,
            [
                *({"rows": rows, "n": n} for rows, n in ((2, 8), (4, 16), (1, 1023), (1, 4096))),
                *({"batch": batch, "rows": rows, "n": n} for batch, rows, n in ((3, 7, 256), (1, 2, 4096))),
            ],
            {SINGLE: (1e-5, 1e-5), BFLOAT: (5e-2, 5e-2)},
            gradients=True,
        ),
        Check(
            "cross_entropy",
            "test/transformers/test_cross_entropy.py: test_correctness, with the mean",
            cross_entropy,
            [{"rows": 2 * 4096, "vocab": 32000}, {"rows": 3 * 423, "vocab": 32000}],
            {BFLOAT: (1e-8, 5e-2), SINGLE: (1e-8, 1e-6)},
            gradients=True,
            cut={"rows": "rows vocab"},
        ),
        Check(
            "rms_norm",
            "test/transformers/test_rms_norm.py: test_correctness, as Llama casts",
            rms_norm(1e-6, "ones"),
            [{"batch": 2, "rows": 128, "d_model": 512}, {"batch": 5, "rows": 123, "d_model": 123}],
            {SINGLE: (1e-4, 1e-6), BFLOAT: (2e-1, 2e-2)},
            gradients=True,
        ),
        Check(
            "swiglu",
            "test/transformers/test_swiglu.py: test_correctness_llamamlp",
            swiglu,
            [
                {"batch": 2, "seq": 256, "d_model": 256, "d_ff": 512},
                {"batch": 6, "seq": 42, "d_model": 123, "d_ff": 431},
            ],
            {SINGLE: (1.0, 1e-5), BFLOAT: (1e4, 1e-2)},
            gradients=True,
        ),
        Check(
            "rope",
            "test/transformers/test_rope.py: test_correctness",
            rope(in_order),
            [
                {"batch": batch, "n_kv_heads": heads, "groups": 1, "seq": seq, "half": half}
                for batch, heads, seq, half in (
                    *((1, 32, 128, 32), (2, 32, 128, 32), (1, 8, 128, 32), (2, 8, 128, 32), (3, 73, 423, 46)),
                    *((3, 213, 423, 46), (3, 155, 423, 46), (1, 32, 8192, 64), (1, 8, 8192, 64)),
                )
            ],
            {SINGLE: (1e-5, 1e-5), BFLOAT: (1e-1, 1e-5), HALF: (1e-2, 1e-5)},
            gradients=True,
            cut={"n_kv_heads": "batch n_kv_heads seq head_dim", "batch": "batch n_kv_heads seq head_dim"},
            layout="transposed",
        ),
    ),
    left_out="embedding (its test is skipped); label smoothing, soft caps, ignored targets, weights of classes",
)

VLLM = Suite(
    "vLLM",
    "vllm-project/vllm",
    "041b9f54fd26d63e61b3a24652d91b9ca3dc12e4",
    (
        *(
            Check(
                "rms_norm",
                "tests/kernels/core/test_layernorm.py: test_rms_norm",
                rms_norm(1e-6, "near one", scaled=True),
                grid(rows=(7, 83, 4096), d_model=(8, 768, 769, 5120, 5125, 8192)),
                {HALF: (1e-2, 1e-2), BFLOAT: (1e-2, 1e-2), SINGLE: (1e-2, 1e-2)},
                cut={"rows": "rows d_model"},
                layout=layout,
            )
            for layout in ("contiguous", "rows apart")
        ),
        Check(
            "rms_norm",
            "tests/kernels/core/test_layernorm.py: test_rms_norm_weightless; vllm/ir/ops/layernorm.py: the tolerance",
            rms_norm(1e-6, "ones"),
            grid(rows=(7, 83, 4096), d_model=(8, 768, 769, 5120, 5125, 8192)),
            {HALF: (1e-2, 2e-3)},
            cut={"rows": "rows d_model"},
        ),
        Check(
            # It compares exactly, with a kernel of the same arithmetic. No other right layer would pass that, so the
            # tolerances are those of the other activations in that file.
            "silu",
            "tests/kernels/core/test_activation.py: test_act_and_mul; tests/kernels/allclose_default.py",
            normal,
            grid(rows=(7, 83, 2048), n=(512, 13824)),
            {HALF: (1e-3, 1e-3), BFLOAT: (1e-3, 1.6e-2), SINGLE: (1e-5, 1.3e-6)},
            cut={"rows": "rows n"},
        ),
        *(
            Check(
                "rope",
                "tests/kernels/core/test_pos_encoding.py: test_rotary_embedding (commit 0cf5d8e), halves of heads",
                rope(lambda case: case.integers("batch seq", 8192)),
                grid(batch=(5,), n_kv_heads=(17,), groups=(1,), seq=(11, 8192), half=(32, 40, 60, 128)),
                {BFLOAT: (1e-3, 1.6e-2), SINGLE: (1e-5, 1.3e-6)},
                cut={"n_kv_heads": "batch n_kv_heads seq head_dim", "batch": "batch n_kv_heads seq head_dim"},
                layout=layout,
            )
            for layout in ("contiguous", "rows apart")
        ),
        Check(
            "attention",
            "tests/kernels/attention/test_flash_attn.py: test_varlen_with_paged_kv (commit 0001b99), each alone",
            attention(causal=True),
            [
                {"batch": 1, "q_len": q_len, "more": kv_len - q_len, "n_kv_heads": n, "groups": groups, "half": half}
                for q_len, kv_len in ((1, 1328), (5, 18), (129, 463), (1, 523), (1, 37), (1, 2011))
                for n, groups in ((4, 1), (2, 4))
                for half in (20, 36, 40, 64, 128)
            ],
            {BFLOAT: (1.5e-2, 1e-2)},
        ),
    ),
    left_out="sums with residuals, quantised results, windows, caps, pages, partial and interleaved rotation",
)

CS336_SIZES = {"batch": 4, "seq": 12, "n_kv_heads": 4, "groups": 1, "half": 8, "d_model": 64, "d_ff": 128}
CS336 = Suite(
    "Stanford CS336, assignment 1",
    "stanford-cs336/assignment1-basics",
    "25a8a49f6460c83a30416d42348f2ef11d1dd185",
    (
        Check(
            "softmax",
            "tests/test_nn_utils.py: test_softmax_matches_pytorch",
            uniform(0, 1),
            [{"rows": 3, "n": 5}],
            {SINGLE: (1e-6, 1e-7)},
            call=moved_up_by_100,
        ),
        Check(
            "cross_entropy",
            "tests/test_nn_utils.py: test_cross_entropy",
            cross_entropy_of_uniform(0, 1),
            [{"rows": 8, "vocab": 5}],
            {SINGLE: (1e-4, 1e-7)},
            call=a_thousand_times_as_large,
        ),
        Check(
            "embedding",
            "tests/test_model.py: test_embedding",
            lambda case: positional(case.integers("batch seq", case.vocab), case.normal("vocab d_model")),
            [CS336_SIZES | {"vocab": 10_000}],
            {SINGLE: (1e-2, 1e-4)},
        ),
        Check(
            "linear",
            "tests/test_model.py: test_linear",
            lambda case: positional(case.normal("batch seq d_model"), case.normal("d_ff d_model", 1 / 8)),
            [CS336_SIZES],
            {SINGLE: (1e-2, 1e-4)},
        ),
        Check(
            "rms_norm",
            "tests/test_model.py: test_rmsnorm",
            lambda case: positional(case.normal("batch seq d_model"), case.uniform("d_model", 0.5, 1.5), 1e-5),
            [CS336_SIZES],
            {SINGLE: (1e-6, 1e-4)},
        ),
        Check(
            "silu",
            "tests/test_model.py: test_silu_matches_pytorch",
            uniform(0, 1),
            [{"rows": 2, "n": 5}],
            {SINGLE: (1e-6, 1e-7)},
        ),
        Check(
            "swiglu",
            "tests/test_model.py: test_swiglu",
            calls.calls_of("swiglu").arguments,
            [CS336_SIZES],
            {SINGLE: (1e-5, 1e-4)},
        ),
        Check(
            "rope",
            "tests/test_model.py: test_rope",
            rope(in_order),
            [{"batch": 4, "n_kv_heads": 1, "groups": 1, "seq": 12, "half": 32}],
            {SINGLE: (1e-6, 1e-4)},
        ),
        *(
            Check(
                "attention",
                f"tests/test_model.py: {test}",
                attention(causal=False, masked=True),
                [{"batch": 4 // heads, "n_kv_heads": heads, "groups": 1, "q_len": 12, "more": 4, "half": 32}],
                {SINGLE: (1e-6, 1e-4)},
            )
            for heads, test in ((1, "test_scaled_dot_product_attention"), (2, "test_4d_scaled_dot_product_attention"))
        ),
        Check(
            "self_attention",
            "tests/test_model.py: test_multihead_self_attention_with_rope",
            self_attention,
            [CS336_SIZES],
            {SINGLE: (1e-6, 1e-4)},
        ),
        Check(
            "decoder_layer",
            "tests/test_model.py: test_transformer_block",
            layers_of_model,
            [CS336_SIZES],
            {SINGLE: (1e-6, 1e-4)},
        ),
        Check(
            "llama",
            "tests/test_model.py: test_transformer_lm",
            model,
            [CS336_SIZES | {"vocab": 10_000, "n_layers": 3}],
            {SINGLE: (1e-4, 1e-2)},
        ),
        Check(
            "adamw",
            "tests/test_optimizer.py: test_adamw",
            lambda case: positional(case.normal("2 3"), case.uniform("steps 3")),
            [{"steps": 1000}],
            {SINGLE: (1e-4, 1e-5)},
            call=a_thousand_steps,
        ),
        Check(
            "clip_grad_norm",
            "tests/test_nn_utils.py: test_gradient_clipping",
            # The loss is the sum of all elements; the sixth tensor is frozen.
            lambda case: positional([target.tensor(torch.ones(5, 5)) for _ in range(case.count)], 1e-2),
            [{"count": 5}],
            {SINGLE: (1e-6, 1e-7)},
            call=clipped,
        ),
        Check(
            "cosine_schedule",
            "tests/test_optimizer.py: test_get_lr_cosine_schedule, with a warm-up that begins above 0",
            lambda case: positional(1.0, 7, 21, 0.1),
            [{"steps": 25}],
            {DOUBLE: (0.0, 1e-7)},
            call=twenty_five_steps,
        ),
    ),
    compares_dtypes=False,
    left_out="rotation of neighbouring pairs; its weights are those of a trained model",
)

KERNELBENCH = Suite(
    "KernelBench",
    "ScalingIntelligence/KernelBench",
    "423217d9fda91e0c2d67e4a43bf62f96f6d104f1",
    (
        Check(
            "softmax",
            "KernelBench/level1/23_Softmax.py; src/kernelbench/eval.py: the tolerance for float32",
            uniform(0, 1),
            [{"rows": 4096, "n": 393_216}],
            {SINGLE: (1e-4, 1e-4)},
            cut={"rows": "rows n"},
        ),
        Check(
            "silu",
            "KernelBench/level1/25_Swish.py",
            uniform(0, 1),
            [{"rows": 4096, "n": 393_216}],
            {SINGLE: (1e-4, 1e-4)},
            cut={"rows": "rows n"},
        ),
        Check(
            "rms_norm",
            "KernelBench/level1/36_RMSNorm_.py, over the last axis",
            lambda case: positional(
                case.uniform([*leading(case), case.d_model]), target.tensor(torch.ones(case.d_model)), 1e-5
            ),
            [{"batch": 112, "seq": 512, "rows": 512, "d_model": 64}],
            {SINGLE: (1e-4, 1e-4)},
            cut=dict.fromkeys(("batch", "seq"), "batch seq rows d_model"),
        ),
        Check(
            "cross_entropy",
            "KernelBench/level1/95_CrossEntropyLoss.py",
            cross_entropy_of_uniform(0, 1),
            [{"rows": 32_768, "vocab": 4096}],
            {SINGLE: (1e-4, 1e-4)},
            cut={"rows": "rows vocab"},
        ),
        Check(
            "linear",
            "KernelBench/level1/17_Matmul_with_transposed_B.py",
            lambda case: positional(case.uniform("rows d_in"), case.uniform("d_out d_in")),
            [{"rows": 2048, "d_in": 8192, "d_out": 4096}],
            {SINGLE: (1e-4, 1e-4)},
            cut={"rows": "rows d_in", "d_out": "d_out d_in"},
        ),
        Check(
            "attention",
            "KernelBench/level1/97_ScaledDotProductAttention.py",
            attention(causal=False, uniform=(0, 1)),
            [{"batch": 32, "n_kv_heads": 32, "groups": 1, "q_len": 512, "more": 0, "half": 512}],
            {SINGLE: (1e-4, 1e-4)},
            cut={"batch": "batch n_kv_heads q_len head_dim", "n_kv_heads": "batch n_kv_heads q_len head_dim"},
        ),
    ),
    seeds=5,  # scripts/generate_and_eval_single_sample.py: num_correct_trials
    left_out="levels 2 to 4, whose programs are no layer of Llama",
)

DEFAULT = (1e-5, 1.3e-6)
"""What torch.testing.assert_close allows in float32."""


def opinfo(
    layer: str,
    samples: str,
    arguments: Callable[[Case], Arguments],
    sizes: Sequence[Sizes],
    single: Tolerance = DEFAULT,
) -> Iterator[Check]:
    """The three tests that every operation with these samples is given."""
    for test, dtype, within, layout in (
        ("test_ops.py: test_compare_cpu", SINGLE, single, "contiguous"),
        ("test_ops.py: test_noncontiguous_samples", SINGLE, single, "strided"),
        ("test_ops_gradients.py: test_fn_grad", DOUBLE, (1e-5, 1e-3), "contiguous"),
    ):
        source = f"torch/testing/_internal/{samples}; test/{test}"
        differences = dtype == DOUBLE
        yield Check(
            *(layer, source, arguments, sizes, {dtype: within}), differences, differences=differences, layout=layout
        )


LARGE_VALUES = (-501.0, 501.0, -1001.2, 1001.2, -13437.7, 13437.7, -4988429.2, 4988429.2, -1e20, 1e20)
OPINFO = Suite(
    "torch's OpInfo",
    "pytorch/pytorch",
    "000ca08b327b223e23d1420f213b8046f149cbeb",
    (
        *opinfo(
            "softmax",
            "opinfo/definitions/_masked.py: sample_inputs_softmax_variant",
            uniform(-9, 9),
            [{"n": 5}, {"rows": 5, "n": 5}, {"batch": 5, "rows": 10, "n": 5}],
        ),
        *opinfo(
            "cross_entropy",
            "common_methods_invocations.py: sample_inputs_cross_entropy",
            cross_entropy_of_uniform(-9, 9),
            [
                {"rows": 2, "vocab": 3},
                {"batch": 2, "rows": 1, "vocab": 3},
                {"batch": 2, "seq": 1, "rows": 2, "vocab": 3},
            ],
        ),
        *opinfo(
            "embedding",
            "common_methods_invocations.py: sample_inputs_embedding",
            lambda case: positional(case.integers(leading(case), case.vocab), case.uniform("vocab d_model", -9, 9)),
            [{"vocab": 10, "d_model": 5} | rows for rows in ({}, {"rows": 5}, {"batch": 5, "rows": 5})],
        ),
        *opinfo(
            "linear",
            "common_methods_invocations.py: sample_inputs_linear",
            lambda case: positional(
                case.uniform([*leading(case), case.d_in], -2, 2), case.uniform("d_out d_in", -2, 2)
            ),
            [
                rows | {"d_in": d_in, "d_out": d_out}
                for rows in ({}, {"rows": 0}, {"rows": 8}, {"batch": 2, "rows": 3})
                for d_in, d_out in ((3, 4), (8, 8))
            ],
        ),
        *opinfo(
            "rms_norm",
            "common_methods_invocations.py: sample_inputs_rms_norm, over the last axis",
            lambda case: positional(
                case.uniform([*leading(case), case.d_model], -9, 1000), case.uniform("d_model", -9, 1000), 1e-5
            ),
            [{"d_model": 1}, {"rows": 1, "d_model": 2}, {"rows": 0, "d_model": 1}],
        ),
        *opinfo(
            "silu",
            "opinfo/core.py: sample_inputs_elementwise_unary",
            uniform(-9, 9),
            [{"n": 20}, {"batch": 1, "rows": 0, "n": 3}],
        ),
        Check(
            "silu",
            "torch/testing/_internal/opinfo/core.py: the large values; test/test_unary_ufuncs.py",
            lambda case: positional(target.tensor(LARGE_VALUES)),
            [{"n": len(LARGE_VALUES)}],
            {SINGLE: DEFAULT},
        ),
        *opinfo(
            "attention",
            "common_methods_invocations.py: sample_inputs_scaled_dot_product_attention",
            attention(causal=False, uniform=(-9, 9)),
            [{"batch": 4, "n_kv_heads": heads, "groups": 1, "q_len": 3, "more": 3, "half": 4} for heads in (1, 4)],
            (5e-5, 5e-6),
        ),
    ),
    left_out="causal attention, which torch aligns at the first key; other axes; refused input; second derivatives",
)

FLASH_ATTENTION = Suite(
    "flash-attention",
    "Dao-AILab/flash-attention",
    "0251105a2fb19d2957484b7f023cd8c115286ced",
    (
        Check(
            "attention",
            "tests/test_flash_attn.py: test_flash_attn_output",
            attention(),
            [
                {
                    "batch": 4,
                    "q_len": q,
                    "kv_len": k,
                    "n_kv_heads": n,
                    "groups": 6 // n,
                    "head_dim": d,
                    "causal": causal,
                }
                for (q, k), d, n, causal in (
                    (of["lengths"], of["head_dim"], of["n_kv_heads"], of["causal"])
                    for of in each(
                        head_dim=(32, 40, 59, 64, 96, 111, 128, 160, 192, 224, 256),
                        lengths=(
                            *((113, 203), (128, 217), (113, 211), (108, 256), (256, 512)),
                            *((512, 256), (1024, 1024), (1023, 1024), (1024, 1023), (2048, 2048)),
                        ),
                        n_kv_heads=(6, 1, 2),
                        causal=(0, 1),
                    )
                )
                if q <= k or not causal  # our causal attention has no more queries than keys
            ],
            {HALF: (0.0, 0.0), BFLOAT: (0.0, 0.0)},
            gradients=True,
            plain=plain_attention,
            times=(2.0, 3.0),
            cut={"batch": "batch n_heads q_len kv_len", "n_kv_heads": "batch n_kv_heads groups q_len kv_len"},
        ),
        Check(
            "attention",
            "tests/test_flash_attn.py: test_flash_attn_causal",
            attention(causal=True),
            [
                {"batch": 8, "q_len": q, "kv_len": k, "n_kv_heads": 9, "groups": 1, "head_dim": d}
                for (q, k), d in (
                    (of["lengths"], of["head_dim"])
                    for of in each(
                        head_dim=(32, 40, 59, 64, 80, 96, 111, 128, 160, 192, 224, 256),
                        lengths=(
                            *((1, 239), (3, 799), (127, 512), (127, 513), (113, 203)),
                            *((128, 217), (113, 211), (108, 256), (256, 512), (1023, 1024)),
                        ),
                    )
                )
            ],
            {HALF: (1e-5, 0.0), BFLOAT: (1e-5, 0.0)},
            gradients=True,
            plain=plain_attention,
            cut={"batch": "batch n_heads q_len kv_len", "n_kv_heads": "batch n_kv_heads groups q_len kv_len"},
        ),
        Check(
            "cross_entropy",
            "tests/losses/test_cross_entropy.py: test_cross_entropy_loss, in float32",
            cross_entropy,
            [{"rows": 4096, "vocab": 50_257}, {"rows": 4096, "vocab": 128_256}],
            {SINGLE: (1e-6, 1e-5)},
            gradients=True,
            cut={"rows": "rows vocab"},
        ),
        Check(
            "rms_norm",
            "tests/ops/triton/test_layer_norm.py: test_layer_norm, without residual and dropout",
            rms_norm(1e-6, "normal"),
            [{"batch": 8, "rows": 512, "d_model": d_model} for d_model in (192, 2048, 2560, 3000, 4096)],
            {SINGLE: (1e-4, 0.0), HALF: (1e-2, 0.0), BFLOAT: (5e-2, 0.0)},
            gradients=True,
            upstream=1 / 8,
            plain=plain_rms_norm,
            cut={"rows": "rows d_model"},
        ),
    ),
    left_out="windows, ALiBi, caps, dropout, pages; more queries than keys, where causal; rotation by random angles; "
    "losses of half precision, in float32",
)

SUITES = {
    "liger": LIGER,
    "vllm": VLLM,
    "cs336": CS336,
    "kernelbench": KERNELBENCH,
    "opinfo": OPINFO,
    "flash-attention": FLASH_ATTENTION,
}
