"""The layers of torch and of transformers."""
