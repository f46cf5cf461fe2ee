"""Other formulas and other ways to compute the same."""
