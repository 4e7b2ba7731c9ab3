"""Batches from replay to a learner on the same host, through shared memory."""
