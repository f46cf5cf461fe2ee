"""The general rules that hold for every layer; docs/rules.md lists each with its test.

Read in this order:

    test_values.py       equal to the naive loops; sizes of one, leading axes, batches, mappings
    test_gradients.py    gradients, and how they are asked for
    test_layouts.py      any layout of memory
    test_sizes.py        blocks and their neighbours, very large sizes, long sums
    test_histories.py    nothing is remembered that could make a later call wrong
    test_modes.py        autocast, threads, random numbers, defaults
    test_gradients_by_hand.py    what layers that return gradients owe besides
    test_python_values.py        the rules for layers of lists and bytes
"""
