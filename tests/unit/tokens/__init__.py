"""Worked examples of the layers of this chapter."""
