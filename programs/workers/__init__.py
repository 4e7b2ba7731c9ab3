"""The workers of a program: a module for each kind, with a function `run`.

The function takes the worker's context (`context.Context`): its name, the run's
directory, the program, and its line to the run. It makes the worker's objects and
runs them until the run stops. A process imports the modules of its own workers only
(`main.run_worker`): the variable server imports no JAX, actors no optimiser.
"""
