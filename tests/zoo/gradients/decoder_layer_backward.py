"""The bugs that people make in decoder_layer_backward."""
