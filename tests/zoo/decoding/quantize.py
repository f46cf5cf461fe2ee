"""The bugs that people make in quantize."""
