"""Equivalence with the naive loops, and the invariants of each layer, for any sizes, dtypes and layouts."""
