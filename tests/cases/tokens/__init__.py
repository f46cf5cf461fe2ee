"""How the layers of this chapter are called."""
