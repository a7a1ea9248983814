"""A site-packages that holds some distributions with what they depend on, linked from this environment, and no other:
what a fresh environment made of a list of requirements can import, without installing it."""

import csv
import importlib.metadata as metadata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(requirements: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Canonical name → distribution: the requirements and all that they depend on here."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    done: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        found.setdefault(name, metadata.distribution(name))
        for extra in ("", *wanted.extras):
            if (name, extra) in done:
                continue
            done.add((name, extra))
            needed = map(Requirement, found[name].requires or ())
            waiting += [one for one in needed if one.marker is None or one.marker.evaluate({"extra": extra})]
    return found


def link_distributions(folder: Path, requirements: Iterable[str], alone: Iterable[str] = ()) -> set[str]:
    """Fill `folder` (empty) with links to the closure's files, and to those of the distributions that come `alone`,
    without what they depend on; the names of the closure."""
    own = closure(requirements)
    owners = Counter(
        top for distribution in metadata.distributions() for top in {file[0] for file in _files(distribution)}
    )
    for distribution in (*own.values(), *map(metadata.distribution, alone)):
        place = Path(str(distribution.locate_file("")))
        # a folder that several distributions share is linked file by file
        names = {"/".join(file) if owners[file[0]] > 1 else file[0] for file in _files(distribution)}
        for name in sorted(names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(place / name)
    return set(own)


def _files(distribution: metadata.Distribution) -> list[list[str]]:
    """Parts of each path; by `distribution.files` it takes twenty seconds for this environment."""
    lines = csv.reader((distribution.read_text("RECORD") or "").splitlines())
    return [line[0].split("/") for line in lines if not line[0].startswith("..") and "__pycache__" not in line[0]]
