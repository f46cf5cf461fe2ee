"""What moves the weights: AdamW, the clipping of gradients, the learning rate."""
