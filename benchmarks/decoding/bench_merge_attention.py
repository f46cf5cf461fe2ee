"""The merge of two parts of attention: both read once, the result written once. torch has none."""

from benchmarks.cases import layer

bench_merge_attention = layer(
    "merge_attention",
    along="seq",
    sizes=(16, 256, 4096),
    others={"batch": 8, "half": 32},
    moved=lambda c: 3 * c.batch * c.seq * (c.head_dim + 1),
    naive=256,
)
