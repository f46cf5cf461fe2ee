"""How llama is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case
from tests.cases.weights import config, model_weights

THETAS = 500_000.0, 10_000.0


def arguments(case: Case) -> Arguments:
    of = config(case, tie_word_embeddings=bool(case.seed % 2), rope_theta=THETAS[case.seed // 2 % 2])
    return positional(case.integers("batch seq", case.vocab), model_weights(case, of), of)


CALLS = Calls(
    "batch seq n_kv_heads groups half d_model d_ff vocab n_layers",
    arguments,
    gradients=(1,),
    batched={0: 1},
    turns=True,
    rounds_within=True,
    multiplies=True,
    very_large=({"vocab": 70_000}, {"seq": 257}, {"n_layers": 11}),
)
