"""Learning: batches in, params and priorities out."""
