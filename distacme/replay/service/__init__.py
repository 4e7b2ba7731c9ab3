"""Replay over gRPC, where Reverb is not: packs in, batches out."""
