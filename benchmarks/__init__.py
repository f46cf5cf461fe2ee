"""What the layers and the model cost, beside those of others: `pytest --benchmark`.

    model/ training/ writing/    one file a layer: its sizes, its cost as a formula, its peers
    bench_naive.py          the loops beside `vectorized`, for all layers at one size
    bench_whole_model.py    the whole model: training, prefill, decoding
    cases.py                from such a description to cells, and from a cell to a number
    refusal.py              the numbers that no honest layer can reach, each refused in a sentence
    machine.py              what this machine reaches, and what a call takes of its memory
    report.py               the tables, the charts, and the comparison of two runs
    session.py              the plugin of pytest that joins them
    peers.py                the modules of transformers and torch, as they are measured
    results/                what one machine showed

Data flows one way: description -> cells (one per size, dtype, pass and column) -> pytest-benchmark -> its JSON
-> report. What is shown of a run is read from what is saved of it.
"""
