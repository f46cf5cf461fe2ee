"""The bugs that people make in softmax_backward."""
