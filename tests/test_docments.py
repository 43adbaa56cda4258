"""Formatting keeps the comments of parameters, from which nbdev makes the tables of arguments."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docment_comments import comments_of, lost_comments
from fastcore.docments import docments

import genaug.core

ROOT = Path(__file__).resolve().parent.parent
EXPORTED = re.compile(r"^#\|\s*exports?i?\s*$", re.MULTILINE)
LIBRARY = sorted((ROOT / "nbs").glob("*/[0-9]*.ipynb"))


def format_files(*paths):
    "What `ruff format` does to files, with the settings of the project."
    settings = ["--quiet", "--no-cache", "--config", str(ROOT / "tools" / "ruff.toml")]
    subprocess.run([sys.executable, "-m", "ruff", "format", *settings, *map(str, paths)], check=True)


def exported_code(path):
    "All exported cells of a notebook as one text."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return "\n\n\n".join(source for source in sources if EXPORTED.search(source))


def test_formatting_the_notebooks_keeps_their_comments(tmp_path):
    before = {path.stem: exported_code(path) for path in LIBRARY}
    for name, text in before.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    format_files(tmp_path)
    after = {name: (tmp_path / f"{name}.py").read_text(encoding="utf-8") for name in before}
    lost = {name: lost_comments(text, after[name]) for name, text in before.items()}
    assert {name: names for name, names in lost.items() if names} == {}
    assert sum(len(comments_of(text)) for text in before.values()) > 2000


@pytest.fixture
def formatted(tmp_path):
    "A text as `ruff format` writes it."

    def write(text):
        path = tmp_path / "text.py"
        path.write_text(text, encoding="utf-8")
        format_files(path)
        return path.read_text(encoding="utf-8")

    return write


LONG = "a comment that goes on until the line is wider than one hundred and ten columns, as this one does"


@pytest.mark.parametrize(
    "text, lost",
    [
        (f'def double(\n    size: int | None = None,  # {LONG}\n) -> int:\n    "Twice."\n', ["double(size)"]),
        ("def twice(size: int) -> str: return 2 * size  # the text\n", ["twice(return)"]),
        (f"@dataclass\nclass Setting:\n    size: int | None = None  # {LONG}\n", ["Setting(size)"]),
        (
            "def twice(size: int,  # first\n          times: int = 2):  # second\n    return size\n",
            ["twice(times)"],
        ),
    ],
)
def test_a_comment_that_formatting_loses_is_seen(text, lost, formatted):
    assert lost_comments(text, formatted(text)) == lost


@pytest.mark.parametrize(
    "text",
    [
        f'def double(\n    # {LONG}\n    size: int | None = None,\n) -> int:\n    "Twice."\n',
        "def twice(size: int) -> str:  # the text\n    return 2 * size\n",
        "def twice(\n    size: int,  # first\n    times: int = 2,  # second\n):\n    return size\n",
    ],
)
def test_a_comment_that_stays_is_no_finding(text, formatted):
    assert lost_comments(text, formatted(text)) == []


def test_comments_are_read_as_nbdev_reads_them():
    text = Path(genaug.core.__file__).read_text(encoding="utf-8")
    known = comments_of(text)
    functions = [
        value for value in vars(genaug.core).values() if getattr(value, "__module__", "") == "genaug.core"
    ]
    assert len(functions) > 5
    for function in functions:
        if isinstance(function, type):
            continue
        for parameter, comment in docments(function).items():
            assert known.get(f"{function.__name__}({parameter})", "") == " ".join((comment or "").split())
