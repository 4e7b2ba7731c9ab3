"""Reverb as a queue of packs from actors; the only folder that imports reverb."""
