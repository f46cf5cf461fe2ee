"""The bugs that people make in paged_attention."""
