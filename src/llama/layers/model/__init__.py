"""The forward pass, from a row of scores to the whole model. Read it in the order of `llama.layers.CHAPTERS`."""

CACHED = 2**18
"""As many float32 numbers as a core's own cache holds (1 MB): what is computed in parts has so many in each."""
