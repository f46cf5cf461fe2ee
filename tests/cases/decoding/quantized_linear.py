"""How quantized_linear is called."""

import torch

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    x = case.normal([case.batch, case.seq, case.n * case.d_in])
    codes = (case.integers([case.d_out, case.n * case.d_in], 255) - 127).to(torch.int8)
    scales = case.uniform("d_out n", 0.0, 1 / 64).to(torch.float32)
    return positional(x, case.laid_out(codes), case.laid_out(scales))


CALLS = Calls(
    "batch seq d_out n d_in",
    arguments,
    batched={0: 1},
    leading=(0,),
    multiplies=True,
    very_large=({"d_in": 4_099}, {"d_out": 70_000}, {"seq": 70_000}),
)
