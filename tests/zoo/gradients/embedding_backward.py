"""The bugs that people make in embedding_backward."""
