"""The bugs that people make in bpe_train."""

from llama import implementation

LAYERS = implementation.load("vectorized")


def probes():
    return []
