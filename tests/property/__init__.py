"""Equivalence with the naive loops, and the invariants of each layer, for any sizes, dtypes and layouts.

every_layer/                     the general rules, for every layer: docs/rules.md
model/  training/  writing/      what defines each layer by itself
test_file_loaders.py             files of any bytes are read or refused in a sentence
"""
