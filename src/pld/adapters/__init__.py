"""The only importers of what is heavy or outside."""

import os

# OpenMP reads it when the first heavy library loads. By default its threads spin while they wait: with one other busy
# process on a 2-core machine, scoring then took 399 ms per example instead of 34 (docs/decisions.md)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
