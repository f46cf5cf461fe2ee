"""The bugs that people make in swiglu_backward."""
