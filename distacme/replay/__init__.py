"""Replay of experience: two backends of a `ReplaySpec`, and their common parts."""
