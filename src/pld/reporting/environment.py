"""The versions that a result may depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

# those that split, embed, cluster, search, score, count or draw
PACKAGES = (
    "pld",
    "torch",
    "transformers",
    "sentence-transformers",
    "umap-learn",
    "hdbscan",
    "scikit-learn",
    "numpy",
    "scipy",
    "optuna",
    "altair",
    "vl-convert-python",
)


def versions() -> dict[str, str]:
    """Name → version, Python's first; what is not installed is left out."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
