"""`python -m docs.generator`: writes the reference pages. With --check it fails if a committed page is outdated."""

import argparse
import sys
from pathlib import Path

from docs.generator.pages import PAGES, rendered

ROOT = Path(__file__).parents[2]


def outdated(root: Path) -> list[str]:
    """Return the paths of the pages below `root` that differ from what the code says."""
    return [page.path for page in PAGES if _text(root / page.path) != rendered(page)]


def write(root: Path) -> None:
    """Write every page below `root`."""
    for page in PAGES:
        path = root / page.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rendered(page), encoding="utf-8")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m docs.generator", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a page is outdated")
    if not parser.parse_args().check:
        write(ROOT)
        return
    if pages := outdated(ROOT):
        sys.exit(f"outdated: {', '.join(pages)}; run make docs")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    main()
