"""The bugs that people make in self_attention_backward."""
