"""The exported code equals a fresh export, cleaning changes nothing, README.md is what the index makes."""

import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from genaug import registry

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import fresh_export  # noqa: E402
import readme  # noqa: E402


def test_a_fresh_export_and_clean_change_nothing():
    actual = fresh_export.differences(ROOT)
    assert not actual, "\n".join(actual)


def test_the_readme_is_made_from_the_index():
    assert readme.differences(ROOT) == [], "run python tools/readme.py"


METHOD_ROW = re.compile(
    r"^\| \[([\w-]+)\]\((nbs/\w+/\d\d_[\w.]+\.ipynb)\) \| "
    r"(?:plain|augmenter|mixer|balancer) \| ",
    re.MULTILINE,
)


def method_rows(text):
    "The names that the README's table of methods lists, in order."
    return [name for name, _ in METHOD_ROW.findall(text)]


def test_every_registered_method_stands_in_the_readme():
    assert method_rows((ROOT / "README.md").read_text(encoding="utf-8")) == list(registry.method_names())


def test_the_readme_links_a_method_to_the_page_that_names_it():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, page in METHOD_ROW.findall(text):
        source = (ROOT / page).read_text(encoding="utf-8")
        assert f'\\"{name}\\"' in source, f"{page} does not name {name}"


def test_a_method_that_the_readme_lacks_is_seen(monkeypatch):
    known = registry.methods()
    added = dataclasses.replace(known[-1], name="lab-transfer", summary="colours of the photograph")
    monkeypatch.setattr(registry, "methods", lambda: (*known, added))
    text, _ = readme.generate(ROOT)
    assert method_rows(text)[-1] == "lab-transfer"
    assert "| colours of the photograph |" in text
    assert readme.differences(ROOT) == ["README.md", "index.ipynb"]


@pytest.fixture
def project(tmp_path):
    "A project of one small notebook, exported."
    root = tmp_path / "project"
    (root / "nbs").mkdir(parents=True)
    for name in fresh_export.CONFIGURATION:
        shutil.copyfile(ROOT / name, root / name)
    cells = [
        ("markdown", "# One\n\n> A page"),
        ("code", "#| default_exp one"),
        ("code", "#| export\nlimit = 3"),
    ]
    notebook = {
        "cells": [
            {
                "cell_type": kind,
                "id": f"c{number}",
                "metadata": {},
                "source": source.splitlines(keepends=True),
                **({"outputs": [], "execution_count": None} if kind == "code" else {}),
            }
            for number, (kind, source) in enumerate(cells)
        ],
        "metadata": {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (root / "nbs" / "00_one.ipynb").write_text(json.dumps(notebook, indent=1, sort_keys=True) + "\n")
    (root / "genaug").mkdir()
    fresh = fresh_export.differences(root)
    assert [name.split()[0] for name in fresh] == ["genaug/__init__.py", "genaug/_modidx.py", "genaug/one.py"]
    (root / "genaug").rmdir()
    fresh_export.subprocess.run(
        [sys.executable, "-c", "from nbdev.doclinks import nbdev_export; nbdev_export.__wrapped__()"],
        cwd=root,
        check=True,
    )
    return root


def test_an_exported_project_is_clean(project):
    assert fresh_export.differences(project) == []


def test_an_edited_module_is_seen(project):
    module = project / "genaug" / "one.py"
    module.write_text(module.read_text().replace("limit = 3", "limit = 4"))
    assert fresh_export.differences(project) == ["genaug/one.py differs: run nbdev_export"]


def test_a_left_over_module_is_seen(project):
    (project / "genaug" / "two.py").write_text("")
    assert fresh_export.differences(project) == ["genaug/two.py is not made by any notebook"]


def test_an_uncleaned_notebook_is_seen(project):
    path = project / "nbs" / "00_one.ipynb"
    path.write_text(path.read_text().replace('"execution_count": null', '"execution_count": 7', 1))
    assert fresh_export.differences(project) == ["nbs/00_one.ipynb differs: run nbdev_clean"]


def test_cleaning_keeps_the_parameters_tag(project):
    """Without allowed_cell_metadata_keys, nbdev_clean would drop the tag and papermill would run with the
    defaults."""
    path = project / "nbs" / "00_one.ipynb"
    notebook = json.loads(path.read_text())
    notebook["cells"][2]["metadata"] = {"tags": ["parameters"]}
    path.write_text(json.dumps(notebook, indent=1, sort_keys=True) + "\n")
    assert fresh_export.differences(project) == []


@pytest.mark.parametrize(
    "before, after",
    [
        ("[a](05_diffusion.ipynb)", "[a](nbs/05_diffusion.ipynb)"),
        ("![a](images/a.png)", "![a](nbs/images/a.png)"),
        ("[a](../LICENSE)", "[a](LICENSE)"),
        ("[a](https://example.org/a)", "[a](https://example.org/a)"),
        ("[a](#limits)", "[a](#limits)"),
        ('<img src="images/a.png">', '<img src="nbs/images/a.png">'),
    ],
)
def test_links_are_made_relative_to_the_top(before, after):
    assert readme.relink(before) == after


def test_all_files_that_the_readme_names_are_there():
    for target in re.findall(
        r'(?:\]\(|src="|href=")([^)"\s#]+)', (ROOT / "README.md").read_text(encoding="utf-8")
    ):
        if not target.startswith(("http", "mailto:")):
            assert (ROOT / target).exists(), target


def test_figures_and_tables_of_the_index_reach_the_readme(tmp_path):
    "A figure becomes a file under nbs/images, a Markdown table stays one, hidden code is left out."
    import base64

    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

    cells = [
        new_markdown_cell("# Title\n\n[page](05_diffusion.ipynb)"),
        new_code_cell("#| hide\nsecret = 1"),
        new_code_cell(
            "#| echo: false\ndraw()",
            outputs=[new_output("display_data", {"image/png": base64.b64encode(b"drawn").decode()})],
        ),
        new_code_cell(
            "#| echo: false\ntable()",
            outputs=[new_output("display_data", {"text/markdown": "| a |\n|---|\n| 1 |", "text/plain": "x"})],
        ),
        new_code_cell("print(3)", outputs=[new_output("stream", name="stdout", text="3\n")]),
    ]
    (tmp_path / "nbs").mkdir()
    nbformat.write(
        new_notebook(
            cells=cells,
            metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "python3"}},
        ),
        tmp_path / "nbs" / "index.ipynb",
    )
    text, figures = readme.generate(tmp_path)
    assert figures == {"readme-1.png": b"drawn"}
    assert "(nbs/images/readme-1.png)" in text
    assert "| a |\n|---|\n| 1 |" in text
    assert "print(3)" in text
    assert "[page](nbs/05_diffusion.ipynb)" in text
    assert "secret" not in text
    assert "draw()" not in text
    assert "table()" not in text
    assert readme.differences(tmp_path) == ["README.md", "readme-1.png"]


def test_tables_of_the_index_are_made_anew_and_its_figures_are_not(tmp_path):
    "Cells of imports and those that end in Markdown(...) are executed in the folder of the index, no other."
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    cells = [
        new_code_cell("#| hide\nfrom pathlib import Path\nfrom IPython.display import Markdown"),
        new_code_cell("#| echo: false\nraise ValueError('a figure is not drawn again')"),
        new_code_cell("#| echo: false\nrows = Path('rows.csv').read_text()\nMarkdown(f'| {rows} |')"),
    ]
    (tmp_path / "nbs").mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path / "nbs" / "index.ipynb")
    for rows in ("five", "six"):
        (tmp_path / "nbs" / "rows.csv").write_text(rows)
        (output,) = readme.with_tables(tmp_path)["cells"][2]["outputs"]
        assert output["data"]["text/markdown"] == [f"| {rows} |"]
        assert f"| {rows} |" in readme.generate(tmp_path)[0]
