"""What makes generation fast: attention in tiles and over pages, weights of few bits, several tokens at a time.

`tiled_attention` never holds all scores at once; `merge_attention` joins what was computed over separate keys;
`paged_attention` reads keys that are scattered over memory. `quantize` and `quantized_linear` hold a weight in 8 or
4 bits. `speculative_accept` keeps of the tokens that a small model proposes as many as the large one would have drawn.

Generation needs no gradients: these layers are not asked for any, and may return tensors with or without a graph.
Where results have another dtype than the first float argument, `result_dtypes` in the file of the layer says which.
"""
