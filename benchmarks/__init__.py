"""How far each part is from what its libraries can do at best; `make bench`.

A benchmark measures a part and its limit in turns, in one run, so that the
ratio holds on another or a busy machine. Each module here is a group that runs
in a process of its own and prints its results; `__main__` runs them all.
"""
