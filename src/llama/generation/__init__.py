"""From a prompt to a text.

Read in this order:

    drawing.py             from logits to a token
    stream.py              the loop: logits, filter, draw, append
    serving.py             several texts at once
    speculation.py         several tokens at once, proposed by a smaller model
    loading.py             the model, as its flags ask for it
    prompt.py              the prompts, from the command line, a file or standard input
    whole_characters.py    tokens as text while they come
    command.py             python -m llama generate

Imports machine, text and model.
"""
