"""Runs a program on more than one machine.

This package is the folder `deploy` of the checkout; it is imported as
`distacme.deploy`.
"""

if __name__ != 'distacme.deploy':
  # From the checkout's root, `import deploy` finds this folder too, and would make
  # a second copy of every module and class in it.
  raise ImportError(
    f'Import distacme.deploy, not {__name__}: the folder deploy/ is installed as a '
    'part of the package distacme.'
  )
