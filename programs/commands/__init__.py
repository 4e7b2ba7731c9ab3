"""The commands of `distacme`, one a file."""
