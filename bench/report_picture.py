"""Takes the README's picture, docs/report.png: the top of artifacts/report/index.html as a reader has it.

    python bench/report_picture.py

It needs Chromium on PATH (Debian: apt-get install chromium) and the report (make repro).
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

REPORT = Path("artifacts/report/index.html")
PICTURE = Path("docs/report.png")
WIDTH, SCALE = 1280, 1
FOLLOWS = "#systems .scroll"  # the picture ends above the first of these


def main() -> str | None:
    """Writes the picture; what was missing, in words."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return "expected Chromium, got none (PATH); run `apt-get install chromium`"
    if not REPORT.exists():
        return f"expected the report, got no such file ({REPORT}); run `dvc repro report`"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, device_scale_factor=SCALE)
        page.goto(REPORT.absolute().as_uri())
        page.locator("html[data-drawn]").wait_for(state="attached")
        ends = page.locator(FOLLOWS).first.bounding_box()
        assert ends is not None
        page.screenshot(path=PICTURE, full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": ends["y"]})
        browser.close()
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")
    return None


if __name__ == "__main__":
    sys.exit(main())
