"""What a run is: its status, its directory, its records."""
