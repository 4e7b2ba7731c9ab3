"""Agents, one file each, as pure functions of JAX arrays.

The folder `agents` of the checkout; imported as `distacme.agents`.
"""

if __name__ != 'distacme.agents':
  # From the checkout's root, `import agents` finds this folder, too. That import would
  # make a second copy of every module and class in the folder.
  raise ImportError(
    f'Import distacme.agents, not {__name__}: the folder agents/ is installed as a '
    'part of the package distacme.'
  )
