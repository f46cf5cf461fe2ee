"""The bugs that people make in the layers of this chapter."""
