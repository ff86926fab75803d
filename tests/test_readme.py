"""The README says what is there: its links lead somewhere, its tables miss no workflow, node or verb."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import comfyui_comovi
import pytest
from comfyui_comovi import cli

ROOT = Path(comfyui_comovi.__file__).resolve().parent
PAGE = ROOT / "README.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="runs in a checkout only")


def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def anchors(page: str) -> set[str]:
    """The headings of a page as the ends of links, spelled as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted(["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]))
def test_every_link_leads_to_a_file_and_a_heading(page):
    here = ROOT / page
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", here.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        name, _, heading = link.partition("#")
        target = here.parent / name if name else here
        if not target.exists() or (heading and heading not in anchors(target.read_text(encoding="utf-8"))):
            lost.append(link)
    assert lost == []


def test_every_workflow_is_in_the_table():
    names = [path.stem for path in (ROOT / "workflows").glob("*.json")]
    assert [name for name in names if f"| `{name}` |" not in text()] == []


def test_every_node_is_in_the_table_by_the_name_on_the_canvas():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "nodes").glob("*.py"))
    named = re.findall(r'make_schema\(\s*"CoMoVi_\w+",\s*"([^"]+)"', source)
    assert len(named) == source.count("make_schema(") - 1  # its definition
    table = text().split("| menu | nodes |")[1].split("\n\n")[0]
    listed = {name.split(" (size")[0].split(" (your")[0].strip() for name in re.split(r"[|·\n]", table)}
    assert set(named) - listed == set()


def test_every_verb_has_a_row_whose_example_the_command_takes():
    rows = re.findall(r"^\| `(\w+)` \|.*\| `comovi (.+)` \|$", text(), re.MULTILINE)
    parser = cli.build_parser()
    verbs = next(action.choices for action in parser._actions if action.dest == "verb")
    assert [verb for verb, _ in rows] == list(verbs)
    for verb, example in rows:
        assert parser.parse_args(shlex.split(example)).verb == verb
