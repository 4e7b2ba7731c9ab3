"""Runs the workers of a program: a module for each kind, with a function `run`.

Each `run` takes a worker's context (`context.Context`), makes the worker's
objects and runs them until the run stops. A process imports only the modules of
its own workers (`main.run_worker`): the variable server imports no JAX, actors
import no optimiser.
"""
