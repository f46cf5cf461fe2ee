"""The answer to another call, or memory that is written later."""
