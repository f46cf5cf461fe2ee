"""RoPE: one read and one write of x; the angles are the same for all heads."""

from benchmarks.cases import layer


def transformers(x, positions, frequencies):
    """Its function turns queries and keys in one call; so each gets half of the heads."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    from benchmarks.peers import config, rotary

    angles = rotary(config(x.shape[1] * x.shape[3], x.shape[1], x.shape[1]))
    queries, keys = x.chunk(2, dim=1)
    return lambda: apply_rotary_pos_emb(queries, keys, *angles(x, positions[None]))


bench_rope = layer(
    "rope",
    along="seq",
    sizes=(4, 64, 1024, 8192),
    others={"batch": 1, "n_kv_heads": 8, "groups": 1, "half": 32},
    moved=lambda c: 2 * c.n_heads * c.seq * c.head_dim,
    naive=64,
    peers={"transformers": transformers},
)
