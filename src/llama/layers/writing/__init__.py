"""From logits to the next token: which tokens stay possible, and which is drawn."""
