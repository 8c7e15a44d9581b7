"""A run: its folder, its state, and the loop that goes through it step by step."""
