"""Table notebooks: one cell tagged `parameters` that sets the agreed names; a lost tag or a wrong default is
seen."""

import ast
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from notebook_habits import Notebook, violations

ROOT = Path(__file__).resolve().parent.parent
TABLES = sorted((ROOT / "nbs" / "tables").glob("[!_]*.ipynb"))
DEFAULTS = {"scale": "seconds", "run": False, "methods": None, "seeds": None, "device": "cpu"}
NAMES = {*DEFAULTS, "data", "backbone", "classifier_weights", "results"}


def wrong_parameters(path):
    "What is wrong with the parameters cell of a table notebook, each a sentence."
    item = violations(path)
    assigned = {
        node.targets[0].id: ast.unparse(node.value)
        for cell in Notebook.read(path).cells
        if "parameters" in cell.tags
        for node in cell.tree.body
        if isinstance(node, ast.Assign)
    }
    item += [f"no parameter {name}" for name in sorted(NAMES - assigned.keys())]
    item += [
        f"{name} = {assigned[name]}, not {value!r}"
        for name, value in DEFAULTS.items()
        if name in assigned and assigned[name] != repr(value)
    ]
    return item


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_the_parameters_of_a_table_notebook(path):
    actual = wrong_parameters(path)
    assert not actual, "\n".join(actual)


@pytest.fixture
def write(tmp_path):
    "Writes a table notebook with the given parameters and tags; returns what is wrong with it."

    def make(tags=(("parameters",),), extra=(), **changes):
        values = {**DEFAULTS, **dict.fromkeys(NAMES - DEFAULTS.keys()), **changes}
        source = "\n".join(f"{name} = {value!r}" for name, value in values.items() if value is not ...)
        cells = (
            [new_markdown_cell("# A table")]
            + [new_code_cell(source, metadata={"tags": list(names)}) for names in tags]
            + list(extra)
        )
        path = tmp_path / "tables" / "few_shot.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(new_notebook(cells=cells), path)
        return wrong_parameters(path)

    return make


def test_a_good_table_notebook_passes(write):
    assert write() == []


def test_a_lost_tag_is_seen(write):
    assert "0 cells are tagged 'parameters', not one" in write(tags=[()])


def test_two_tags_are_seen(write):
    assert "2 cells are tagged 'parameters', not one" in write(tags=[("parameters",), ("parameters",)])


def test_a_missing_parameter_is_seen(write):
    assert write(backbone=...) == ["no parameter backbone"]


def test_a_notebook_that_runs_by_default_is_seen(write):
    assert write(run=True) == ["run = True, not False"]


def test_a_table_notebook_that_exports_is_seen(write):
    assert any(
        "exports nothing" in sentence for sentence in write(extra=[new_code_cell("#| export\nlimit = 3")])
    )


def test_a_heavy_table_notebook_is_seen(write):
    assert any("at most 300" in sentence for sentence in write(extra=[new_markdown_cell("word " * 75_000)]))
