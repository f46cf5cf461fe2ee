"""Llama as a torch module over any implementation, its cache, and its files.

Read in this order:

    config.py            LlamaConfig: the fields of a Hugging Face config.json
    language_model.py    named weights, computed with by an implementation
    llama.py             Llama
    kv_cache.py          KVCache: each token is computed once
    paged_cache.py       the same for several sequences, in pages of one memory
    quantized.py         a Llama in codes of 8 or 4 bits
    products.py          a matrix times one vector, or a few
    decoder.py           one token at a time, in as few operations as possible
    batch_decoder.py     several tokens at a time, likewise
    weights.py           the tensors of a Hugging Face folder
    llama2c.py           the files of llama2.c
    checkpoint.py        a model with its tokenizer, from any of these

Imports machine, contract, implementation and text. It reaches layers through an
implementation alone. decoder.py and batch_decoder.py compute what our fused layers do, with their weights merged.
"""
