"""How quantize is called."""

from tests.cases.calls import Arguments, Calls
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    """Weights none of which lies near a half of its scale, where rounding may give either code."""
    bits, group = (8, 4)[case.seed % 2], case.d_in
    weight = case.normal("d_out n d_in").contiguous()
    largest = weight.double().abs().amax(dim=-1, keepdim=True)
    ratio = weight.double() * (2 ** (bits - 1) - 1) / largest.clamp(min=1e-300)
    weight[((ratio - ratio.floor()) - 0.5).abs() < 0.02] = 0
    return (case.laid_out(weight.flatten(1)),), {"bits": bits, "group": group}


CALLS = Calls(
    "d_out n d_in",
    arguments,
    very_large=({"d_in": 70_000}, {"n": 70_000}, {"d_out": 70_000}),
    results=("codes", "scales"),
    double_too=True,
)
