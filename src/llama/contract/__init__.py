"""What a layer promises: its signature as a contract, and how a call that breaks it is refused.

Read in this order:

    call.py           @contract: the decorator of every layer
    annotations.py    from an annotation such as Float[Tensor, "batch seq"] to a rule that an argument keeps or breaks
    weights.py        the names of the weights that composed layers are called with

Imports nothing else of the project: a layer needs its contract and nothing more.
"""

from llama.contract.call import check_ids, check_merges, contract, unchecked

__all__ = ["check_ids", "check_merges", "contract", "unchecked"]
