"""How attention is called."""

from tests.cases.calls import Arguments, Calls
from tests.cases.case import Case

# All kinds of axes that broadcast to [batch n_heads q_len kv_len].
MASKS = (
    None,
    "kv_len",
    "q_len kv_len",
    "n_heads q_len kv_len",
    "batch 1 1 kv_len",
    "batch 1 q_len kv_len",
    "batch n_heads q_len kv_len",
)


def arguments(case: Case) -> Arguments:
    q = case.normal("batch n_heads q_len head_dim")
    k, v = case.normal("batch n_kv_heads kv_len head_dim"), case.normal("batch n_kv_heads kv_len head_dim")
    mask_axes = MASKS[case.seed % len(MASKS)]
    return (q, k, v), {"causal": case.seed % 2 == 0, "mask": case.booleans(mask_axes) if mask_axes else None}


CALLS = Calls(
    "batch n_kv_heads groups q_len more half",
    arguments,
    gradients=(0, 1, 2),
    batched={0: 1, 1: 1, 2: 1, "mask": 4},
    multiplies=True,
    very_large=(
        {"q_len": 2, "more": 4_095},
        {"q_len": 1, "more": 8_191},
        {"q_len": 300, "more": 0},
        {"q_len": 129, "more": 128, "half": 65},
        {"batch": 8_192, "groups": 4},
    ),
)
