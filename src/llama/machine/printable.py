"""Texts of others, which may hold anything."""


def printable(text: str) -> str:
    """Without what steers a terminal, or has no place in XML or UTF-8."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
