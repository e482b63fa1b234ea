"""How all tests are run.

XLA compiles with few optimisations, which takes a third less time: most tests compile small programs and run them once.
The README's main job, which CI runs too, is compiled as users' jobs are.
"""

from __future__ import annotations

import os

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
