"""Compares each part with the best that its libraries can do; `make bench`.

A benchmark measures a part and its limit in turns, in one run, so that the
ratio holds on another machine and on a busy one. Each module here is a group,
which runs in a process of its own and prints its results; `__main__` runs all.
"""
