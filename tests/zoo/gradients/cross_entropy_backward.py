"""The bugs that people make in cross_entropy_backward."""
