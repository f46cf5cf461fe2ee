"""Llama, layer by layer: as loops anyone can check, as plain torch, and as the fastest torch there is."""
