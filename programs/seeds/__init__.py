"""Several runs that differ in their seeds."""
