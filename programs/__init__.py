"""Starts the workers of a run, and holds the command line.

This package is the folder `programs` of the checkout; it is imported as
`distacme.programs`.
"""

if __name__ != 'distacme.programs':
  # From the checkout's root, `import programs` finds this folder too, and would make
  # a second copy of every module and class in it.
  raise ImportError(
    f'Import distacme.programs, not {__name__}: the folder programs/ is installed as a '
    'part of the package distacme.'
  )
