"""What the layers are called with: sizes, a dtype and a seed are drawn, tensors are made from the seed.

Read in this order:

    case.py       Case, and the strategy that draws one
    target.py     the device under test, its dtypes, and tensors on it
    on_paper.py   a Llama that can be worked out on paper
    weights.py    positions, frequencies, weights and configs, made from a case
    sizes.py      sizes at and around the blocks of kernels, and very large ones
    calls.py      typical calls of every layer; what is known of one stands in the file of its name:
                  model/, training/, writing/

Knows no test and no judge.
"""
