"""Experience: what an agent wants of it as data, and two backends that obey."""
