"""The bugs that people make in llama_backward."""
