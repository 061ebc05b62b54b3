"""The page of derivations and the docstrings that cite it: sections exist, equations have numbers, formulas hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "theory.md"
NUMBER = r"\d+(?:\.\d+)*"
CITATION = re.compile(rf"docs/theory\.md, sections? ({NUMBER}(?:(?:, and|,| and) {NUMBER})*)")
FENCED = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
HEADING = re.compile(rf"^#+ ({NUMBER})\.? ", flags=re.MULTILINE)


def flowing(path: Path) -> str:
    """The text of a file on one line, without the marks of comments, so that citations may be broken over lines."""
    return " ".join(re.sub(r"^\s*#", " ", path.read_text(encoding="utf-8"), flags=re.MULTILINE).split())


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def prose() -> str:
    """The page without its Python blocks."""
    return FENCED.sub("", page())


def sections() -> list[str]:
    return HEADING.findall(prose())


def cited_in(text: str) -> set[str]:
    return {number for found in CITATION.findall(text) for number in re.findall(NUMBER, found)}


def sources() -> list[Path]:
    return sorted((ROOT / "src").rglob("*.py"))


def blocks() -> Iterator[tuple[str, str]]:
    """Every Python block with the section that it stands in."""
    for found in FENCED.finditer(page()):
        yield HEADING.findall(page()[: found.start()])[-1], found.group(1)


def test_every_section_that_a_docstring_cites_exists() -> None:
    known = set(sections())
    cited = {path: cited_in(flowing(path)) for path in sources()}
    missing = {str(path.relative_to(ROOT)): numbers - known for path, numbers in cited.items() if numbers - known}
    assert missing == {}
    assert len({number for numbers in cited.values() for number in numbers}) > 25


def test_every_mention_of_the_page_in_the_sources_names_a_section() -> None:
    for path in sources():
        text = flowing(path)
        assert text.count("docs/theory.md") == len(CITATION.findall(text)), path


@pytest.mark.parametrize("folder", ["src", "tests", "docs", "examples", "benchmarks"])
def test_no_text_cites_a_note_that_is_not_here(folder: str) -> None:
    absent = "theory " + "note"
    paths = [path for kind in ("*.py", "*.md") for path in (ROOT / folder).rglob(kind)]
    assert paths
    assert [str(path) for path in paths if absent in flowing(path).lower()] == []


def test_sections_are_numbered_in_order() -> None:
    found = [tuple(map(int, number.split("."))) for number in sections()]
    expected = []
    for number in found:
        if len(number) == 1:
            expected.append((sum(len(other) == 1 for other in expected) + 1,))
        else:
            chapter = expected[-1][0]
            expected.append((chapter, sum(len(other) == 2 and other[0] == chapter for other in expected) + 1))
    assert found == expected


def test_every_section_that_the_page_refers_to_exists() -> None:
    referred = set(re.findall(rf"\bsections? ({NUMBER})", flowing(PAGE)))
    assert referred
    assert referred <= set(sections())


def test_equations_are_numbered_in_order_and_every_reference_has_one() -> None:
    labels, chapter = [], ""
    for line in prose().splitlines():
        if heading := HEADING.match(line):
            chapter = heading.group(1).split(".")[0]
        elif label := re.match(r"    .*\S\s+\((\d+)\.(\d+)\)$", line):
            assert label.group(1) == chapter, line
            labels.append((int(label.group(1)), int(label.group(2))))
    last: dict[int, int] = {}
    for number, place in labels:
        assert place == last.get(number, 0) + 1, (number, place)
        last[number] = place
    written = {tuple(map(int, pair)) for pair in re.findall(r"\((\d+)\.(\d+)\)", prose())}
    assert written == set(labels)


@pytest.mark.parametrize(("section", "code"), [pytest.param(*block, id=block[0]) for block in blocks()])
def test_the_formulas_of_a_section_hold(section: str, code: str) -> None:
    assert "assert" in code
    exec(compile(code, f"docs/theory.md, section {section}", "exec"), {})
