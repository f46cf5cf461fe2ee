"""SwiGLU: three matrix products, and between them two vectors per token that are multiplied."""

from types import SimpleNamespace

from torch import nn

from benchmarks.cases import layer, loaded


def torch_nn(x, w_gate, w_up, w_down):
    gate, up, down = (
        loaded(lambda w=w: nn.Linear(*w.shape[::-1], bias=False), weight=w) for w in (w_gate, w_up, w_down)
    )
    act = nn.SiLU()
    return lambda: down(act(gate(x)) * up(x))


def transformers(x, w_gate, w_up, w_down):
    from transformers.models.llama.modeling_llama import LlamaMLP

    sizes = SimpleNamespace(
        hidden_size=w_gate.shape[1], intermediate_size=w_gate.shape[0], mlp_bias=False, hidden_act="silu"
    )
    weights = {"gate_proj.weight": w_gate, "up_proj.weight": w_up, "down_proj.weight": w_down}
    module = loaded(lambda: LlamaMLP(sizes), **weights)
    return lambda: module(x)


bench_swiglu = layer(
    "swiglu",
    along="seq",
    sizes=(2, 32, 512, 2048),
    others={"batch": 1, "d_model": 256, "d_ff": 704},
    flops=lambda c: 6 * c.seq * c.d_model * c.d_ff,
    naive=2,
    peers={"torch.nn": torch_nn, "transformers": transformers},
)
