"""Replay in a Reverb server; the only folder that imports reverb."""
