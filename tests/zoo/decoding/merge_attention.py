"""The bugs that people make in merge_attention."""
