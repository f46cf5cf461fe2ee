"""The bugs that people make in linear_backward."""
