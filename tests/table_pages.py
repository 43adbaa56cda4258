"Table notebooks as tests see them: their cells executed in one namespace, with other parameters."

import ast
from pathlib import Path

import nbformat

from genaug.table_page import Table

TABLES = Path(__file__).resolve().parent.parent / "nbs" / "tables"


def executed(name, until_run=True, **parameters):
    "The names a table notebook defines, with other parameters; until it has made its table, or to the end."
    space = {"display": lambda *shown: None}
    for cell in nbformat.read(TABLES / f"{name}.ipynb", 4).cells:
        if cell.cell_type == "code":
            exec(compile(ast.parse(cell.source), name, "exec"), space)
            if "parameters" in cell.metadata.get("tags", []):
                space.update(parameters)
            if until_run and isinstance(space.get("table"), Table):
                break
    return space
