"""What the layers of this chapter cost: sizes, cost as a formula, peers."""
