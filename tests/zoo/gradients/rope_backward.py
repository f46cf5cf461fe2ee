"""The bugs that people make in rope_backward."""
