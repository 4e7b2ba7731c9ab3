"""What turns a program into threads, processes or jobs."""
