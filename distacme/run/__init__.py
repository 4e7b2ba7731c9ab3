"""A run as data: its status, its directory, its records."""
