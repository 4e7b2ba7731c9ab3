"""Saves and restores the state of Python objects, for `environments.simulators`."""
