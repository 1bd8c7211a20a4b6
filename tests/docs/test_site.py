"""What the documentation site is laid out from; ``make docs`` builds it and fails on a warning."""

import re
from pathlib import Path

import yaml
from pages import PAGES, ROOT

from tools.docs.site import for_the_site, lay_out

CONFIG = ROOT / "tools" / "docs" / "mkdocs.yml"


def marked(tex: str, block: bool) -> str:
    return f"<{'block' if block else 'inline'}:{tex.strip()}>"


def test_formulas_are_replaced_and_code_is_not():
    page = "With $N$ tokens, `$HOME` and `a $b$`:\n\n```math\nR = a\n```\n\n```console\n$ make $it\n```\nor $c$"
    assert for_the_site(page, marked) == (
        "With <span><inline:N></span> tokens, `$HOME` and `a $b$`:\n\n<div><block:R = a></div>\n\n"
        "```console\n$ make $it\n```\nor <span><inline:c></span>"
    )


def test_bars_in_the_code_of_a_table_are_not_escaped():
    page = "`a\\|b`\n\n| a \\| `b\\|c` |\n|---|\n\n```text\n| `d\\|e` |\n```"
    assert for_the_site(page, marked) == "`a\\|b`\n\n| a \\| `b|c` |\n|---|\n\n```text\n| `d\\|e` |\n```"


def test_the_site_has_every_page_and_what_it_shows(tmp_path: Path):
    (tmp_path / "out" / "old").mkdir(parents=True)
    lay_out(ROOT, tmp_path / "out", marked)
    laid = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {path.relative_to(ROOT) for path in PAGES} <= laid
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8")):
            if not link.startswith("https://"):
                assert (page.parent / link).resolve().relative_to(ROOT) in laid, f"{page.name} links to {link}"
    assert not (tmp_path / "out" / "old").exists()


def test_the_menu_has_every_page():
    menu = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["nav"]
    shown = [page for section in menu for pages in section.values() for page in pages]
    assert sorted(shown) == sorted(path.relative_to(ROOT).as_posix() for path in PAGES)
