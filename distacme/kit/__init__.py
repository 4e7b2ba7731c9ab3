"""What agents are made of: networks, distributions, losses, settings."""
