"""The project computes for it."""
