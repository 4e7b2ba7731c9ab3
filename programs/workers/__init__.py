"""The workers of a program: a module for each kind, with a function `run`.

Each takes its connection to the run, addresses and a description of the run, makes
its objects and runs them until the run stops. A process imports the module of its own
worker only (`programs.workers.main.Task`): the variable server no JAX, actors no optimiser.
"""
