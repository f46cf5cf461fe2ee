"""The bugs that people make in silu_backward."""
