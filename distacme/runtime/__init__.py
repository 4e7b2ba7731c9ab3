"""Turns a program into threads, processes or jobs."""
