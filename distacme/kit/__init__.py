"""Parts of agents: networks, distributions, losses, settings."""
