"""From a prompt to a text.

Read in this order:

    stream.py              the loop: logits, filter, draw, append
    prompt.py              the prompt, from the command line, a file or standard input
    whole_characters.py    tokens as text while they come
    command.py             python -m llama generate

Imports machine, text and model.
"""
