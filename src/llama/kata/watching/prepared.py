"""Importing this imports the tests, for processes that are forked from the one that does: see warm.py."""

from llama.kata.watching.warm import prepare

prepare()
