"""Filtering of logits, all four filters at once: most of it is the sorting that top_p needs."""

from benchmarks.cases import layer

OPTIONS = {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "min_p": 0.05}


def arguments(case):
    return (case.normal("seq n", 3.0),), OPTIONS


def transformers(logits, temperature, top_k, top_p, min_p):
    from transformers.generation import logits_process

    warpers = logits_process.LogitsProcessorList(
        [
            logits_process.TemperatureLogitsWarper(temperature),
            logits_process.TopKLogitsWarper(top_k),
            logits_process.TopPLogitsWarper(top_p),
            logits_process.MinPLogitsWarper(min_p),
        ]
    )
    return lambda: warpers(None, logits)


bench_filter_logits = layer(
    "filter_logits",
    along="n",
    sizes=(64, 1024, 8192, 131072),
    others={"seq": 8},
    moved=lambda c: 2 * c.seq * c.n,
    naive=1024,
    arguments=arguments,
    peers={"transformers": transformers},
)
