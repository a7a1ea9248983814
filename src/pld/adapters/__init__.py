"""The swappable parts: Teachers, Students, embedders and clusterers; only they import heavy libraries."""

import logging
import os
import sys

# GNU OpenMP reads it when the first heavy library loads. By default its threads spin long while they wait: with one
# other busy process on a 2-core machine, scoring took 399 ms per example instead of 35
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# bitsandbytes 0.50, which sentence-transformers imports by way of peft, tells of an optional kernel it did not find
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

# the bars of libraries belong on a terminal, as ours do
if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_DISABLE", "1")
