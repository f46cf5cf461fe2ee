"""Worked examples that a person can check on paper: read a file from top to bottom as the definition of its layer.

test_written.py asks whether a layer is written at all: for a stub it is the one test that runs, and fails.
"""
