"""Byte-pair encoding: how pairs of bytes are learned, and how a text is written with them.

Read it in the order of `llama.layers.CHAPTERS`. Ids 0..255 are the bytes, and `merges[i]`, a pair of smaller ids, makes
id 256 + i. The layers take and return plain Python values. `vectorized` means incremental here: it keeps counts and
neighbours up to date, where `naive` reads everything again for each merge. `fused` is the Rust of `tokenizers`.
"""
