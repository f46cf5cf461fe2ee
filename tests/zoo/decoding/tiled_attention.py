"""The bugs that people make in tiled_attention."""
