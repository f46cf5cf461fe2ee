"""From a name or a path to batches of token ids.

Read in this order:

    corpus.py       a text by name or path, with its entropy where that is known
    downloads.py    files that are found in LLAMA_DATA_DIR or fetched once, and checked
    grammar.py      the built-in grammar: a text whose entropy rate is known exactly
    tokenizer.py    characters and tokenizer.json: text to ids and back
      token_ids.py, llama2c_tokenizer.py
    splitting.py    text to words, by the patterns of GPT-2 and Llama 3
    byte_pairs.py   a tokenizer that is trained on a text, and written as a tokenizer.json
    command.py      `python -m llama tokenizer train`
    windows.py      splits, and windows whose targets are their inputs shifted by one

Imports machine and implementation.
"""
