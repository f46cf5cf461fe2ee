"""Worked examples that a person can check on paper: read a file from top to bottom as the definition of its layer."""
