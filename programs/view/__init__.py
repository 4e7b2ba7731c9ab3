"""Shows runs to people: in the terminal, as curves, as videos."""
