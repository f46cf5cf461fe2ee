"""The bugs that people make in bpe_encode."""

from llama import implementation

LAYERS = implementation.load("vectorized")


def probes():
    return []
