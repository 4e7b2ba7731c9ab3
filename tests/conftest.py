"""Settings that hold for every test, before anything imports JAX."""

import os

# Tests measure the framework; an accelerator would add a minute of start-up.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Broadcasting [B] against [B, 1] trains, badly. An error here, in worker
# processes that a test starts as well.
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'
