"""The bugs that people make in quantized_linear."""
