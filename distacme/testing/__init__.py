"""Tiny environments and other tools for tests, of distacme and its users."""
