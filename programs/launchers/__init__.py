"""Starts the workers of a run."""
