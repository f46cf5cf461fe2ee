"""What the judge relies on is another, or computes differently."""
