"""No stored page disagrees with the committed rows: every table page, and every cell of a library page that
quotes rows, is executed again and its texts are compared; a planted change is seen."""

import json
import shutil

import pytest
from stored_outputs import ROOT, differences, pages, quoting_cells


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_a_page_shows_what_the_rows_say(path):
    assert differences(path) == []


@pytest.fixture
def copy(tmp_path):
    "A copy of the project's tables; `change` gets the stored cells of a page, or the lines of its rows."

    def make(name, change=None, change_rows=None):
        for folder in ("tables", "results"):
            shutil.copytree(ROOT / "nbs" / folder, tmp_path / folder, dirs_exist_ok=True)
        page, rows = tmp_path / "tables" / f"{name}.ipynb", tmp_path / "results" / f"{name}.csv"
        if change is not None:
            notebook = json.loads(page.read_text(encoding="utf-8"))
            change(notebook["cells"])
            page.write_text(json.dumps(notebook), encoding="utf-8")
        if change_rows is not None:
            rows.write_text(change_rows(rows.read_text(encoding="utf-8")), encoding="utf-8")
        return page

    return make


def text_output(cells, word):
    "The first stored output of a kind."
    return next(
        output["data"]
        for cell in cells
        if cell["cell_type"] == "code"
        for output in cell["outputs"]
        if word in output.get("data", {})
    )


@pytest.mark.parametrize("kind", ["text/markdown", "text/html"])
def test_a_number_that_was_changed_by_hand_is_seen(copy, kind):
    def change(cells):
        data = text_output(cells, kind)
        text = "".join(data[kind])
        digit = next(letter for letter in text if letter in "123456789")
        data[kind] = text.replace(digit, "0")

    assert any("now" in line for line in differences(copy("diff_ii_few_shot", change)))


def test_rows_that_changed_are_seen(copy):
    def change_rows(text):
        head, *lines = text.splitlines()
        column = head.split(",").index("value")
        for number, line in enumerate(lines):
            fields = line.split(",")
            if ",hour,diff-ii,," in line and ",accuracy,,0." in line:
                fields[column] = "0.9"
                lines[number] = ",".join(fields)
        return "\n".join([head, *lines]) + "\n"

    assert differences(copy("diff_ii_few_shot", change_rows=change_rows))


def test_a_library_page_is_executed_only_where_it_quotes():
    path = next(path for path in pages() if path.parent.name == "methods")
    every = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert 0 < len(quoting_cells(path)) < sum(cell["cell_type"] == "code" for cell in every) / 2
