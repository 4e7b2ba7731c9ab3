"""Turns a program into threads or processes."""
