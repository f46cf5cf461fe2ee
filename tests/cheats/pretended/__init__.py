"""A result that only says that it is right."""
