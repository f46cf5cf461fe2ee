"""What defines the layers of this chapter, for any sizes."""
