"""The layout of what replay keeps: rows of bytes, and frames shared by rows."""
