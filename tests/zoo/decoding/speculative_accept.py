"""The bugs that people make in speculative_accept."""
