"""From a name or a path to batches of token ids.

Read in this order:

    corpus.py       a text by name or path, with its entropy where that is known
    downloads.py    files that are found in LLAMA_DATA_DIR or fetched once, and checked
    grammar.py      the built-in grammar: a text whose entropy rate is known exactly
    splitting.py    text to words, by the patterns of GPT-2 and Llama 3
    tokenizer.py    characters, tokenizer.json, llama2.c's tokens: text to ids and back
    windows.py      splits, and windows whose targets are their inputs shifted by one

Imports machine.
"""
