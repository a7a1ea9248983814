"""docs/ and README.md: generated parts match the code, links work, and the built site needs no network."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from pld.cli.reference import imports_between_folders, pages

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
LINKING = [*PAGES, ROOT / "README.md", ROOT / "bench/results.md"]
TARGET = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?\)")
FENCE = re.compile(r"^(````*)[^\n]*\n.*?^\1$", re.MULTILINE | re.DOTALL)


def _prose(page: Path) -> str:
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def broken_links(page: Path) -> list[str]:
    """Targets of links and images on a page that name no file or heading."""
    broken = []
    for target in TARGET.findall(_prose(page)):
        name, _, anchor = unquote(target).partition("#")
        file = (page.parent / name).resolve() if name else page
        if not re.match(r"\w+:", target) and (not file.exists() or (anchor and anchor not in _anchors(file))):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_image_leads_to_a_file_and_a_heading(page):
    assert broken_links(page) == []


def test_a_broken_link_anchor_or_image_is_noticed(tmp_path):
    (tmp_path / "other.md").write_text("# Some title: here\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# T\n[a](other.md#some-title-here) [b](other.md#no) [c](gone.md) ![d](gone.png) [e](#t) `[f](g)`\n"
    )
    assert broken_links(page) == ["other.md#no", "gone.md", "gone.png"]


def test_every_page_named_in_code_or_settings_exists():
    files = [path for folder in ("src", "conf", "bench", "tests") for path in (ROOT / folder).rglob("*.*")]
    files = [path for path in [*files, ROOT / "Makefile"] if path.suffix in (".py", ".yaml", "") and path.is_file()]
    named = {name for path in files for name in re.findall(r"\bdocs/[\w/-]+\.(?:md|png|svg)", path.read_text("utf-8"))}
    assert "docs/how-to/teacher.md" in named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_page_is_in_the_navigation():
    def named(entry):
        if isinstance(entry, str):
            return [entry]
        return [page for below in (entry if isinstance(entry, list) else entry.values()) for page in named(below)]

    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(named(navigation)) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES)


def test_generated_documentation_is_up_to_date():
    stale = [path for path, text in pages().items() if Path(path).read_text(encoding="utf-8") != text]
    assert stale == [], "run `make docs`"


def test_imports_between_folders_go_one_way():
    seen = set()
    for folder, imported in imports_between_folders().items():
        assert imported <= seen, f"{folder} imports {imported - seen}"
        seen.add(folder)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    project = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", project / "docs")
    shutil.copy(ROOT / "mkdocs.yml", project)
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--clean", "--strict"]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    return project / "site"


def test_the_built_site_has_every_page(site):
    built = {str(path.relative_to(site).with_suffix("")) for path in site.rglob("*.html")}
    assert {str(page.relative_to(ROOT / "docs").with_suffix("")) for page in PAGES} <= built


def test_the_built_site_opens_from_disk_without_a_network(site):
    assert (site / "index.html").exists()
    for page in site.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*?\ssrc=[\"']?([^\"'\s>]+)", html)
        loaded += re.findall(r"<link\b(?![^>]*rel=[\"']?canonical)[^>]*?\shref=[\"']?([^\"'\s>]+)", html)
        for address in loaded:
            assert not re.match(r"(\w+:)?//", address) or address.startswith("data:"), (page, address)
            if page.name != "404.html" and not address.startswith("data:"):
                assert (page.parent / address.split("?")[0].split("#")[0]).exists(), (page, address)
        assert "mermaid" not in re.sub(r"<pre>.*?</pre>", "", html, flags=re.DOTALL), page  # fetched from a CDN
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text(encoding="utf-8")), style
