"""The bugs that people make in attention_backward."""
