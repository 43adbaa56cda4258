"""What a page shows, made again from the committed rows, and what is stored in it.

    python tests/stored_outputs.py nbs/tables/diff_ii_few_shot.ipynb [more]   # no argument: all that quote

prints the cells whose stored text differs from what their code gives today, and ends with status 1 if there
are any. A table page is executed whole. Of a library page only the cells that read committed rows are
executed, and what they need. Figures are not compared.
"""

import ast
import builtins
import contextlib
import io
import json
import os
import re
import symtable
import sys
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
QUOTING = re.compile(
    r"\b(read_rows|table_rows|load_rows|read_csv|printed_values)\(|\bpage\.Table\(|\bTable\(\""
)
BY_NAME = re.compile(  # the library finds the rows of a table by its name
    r"\b(?<!def )(shown_rows|printed_values|method_table|comparison_views|precision_tables|AlignmentTable|"
    r"over_runs)\("
)
TEXTS = ("text/markdown", "text/html", "text/plain")
PICTURES = ("image/svg+xml", "image/png", "image/jpeg")


def code_cells(path):
    "Position, source and stored outputs of the cells that run anywhere."
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    for position, cell in enumerate(cells):
        source = "".join(cell["source"])
        apart = re.search(r"^#\|\s*(gpu|slow|default_exp|eval: false)", source, flags=re.MULTILINE)
        if cell["cell_type"] == "code" and not apart and "nbdev_export()" not in source:
            yield position, source, cell["outputs"]


def shown_texts(outputs):
    "The texts of outputs as (kind, text), pictures left out."
    printed = "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")
    texts = [("stdout", printed)] if printed else []
    for output in outputs:
        data = output.get("data", {})
        if any(kind in data for kind in PICTURES):
            continue
        if kind := next((kind for kind in TEXTS if kind in data), None):
            texts.append((kind, "".join(data[kind])))
    return texts


def global_names(source):
    "The global names that a statement defines, and those that it reads."
    top = symtable.symtable(source, "cell", "exec")
    symbols = top.get_symbols()
    defined = {item.get_name() for item in symbols if item.is_assigned() or item.is_imported()}
    used = {item.get_name() for item in symbols if item.is_referenced()}
    tables = list(top.get_children())
    while tables:
        table = tables.pop()
        used |= {item.get_name() for item in table.get_symbols() if item.is_global()}
        tables += table.get_children()
    return defined, used


def names_of(source):
    "The names that a cell defines, and those that it needs from cells before it."
    defined, needed = set(), set()
    for node in ast.parse(source).body:
        own, used = global_names(ast.unparse(node))
        needed |= used - defined
        defined |= own
    return defined, needed - set(dir(builtins))


def quoting_cells(path):
    "The cells of a library page that read committed rows, with all that they need before them."
    cells = list(code_cells(path))
    wanted, needed = set(), set()
    for number in reversed(range(len(cells))):
        defined, used = names_of(cells[number][1])
        source = cells[number][1]
        quotes = bool(QUOTING.search(source)) and "results" in source + str(path)
        if quotes or BY_NAME.search(source) or defined & needed:
            wanted.add(number)
            needed = (needed - defined) | used
    return [cell for number, cell in enumerate(cells) if number in wanted]


def run_cell(source, space, formatter):
    "The outputs of a cell as a notebook would store them, pictures drawn by pyplot left out."
    import IPython.display

    shown, tree, printed = [], ast.parse(source), io.StringIO()
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None

    def display(*items, **_):
        shown.extend(item for item in items if item is not None)

    with contextlib.redirect_stdout(printed), patch.object(IPython.display, "display", display):
        if "display" in space:
            space["display"] = display
        exec(compile(tree, "page", "exec"), space)
        value = eval(compile(ast.Expression(last.value), "page", "eval"), space) if last else None
    if value is not None and not source.rstrip().endswith(";"):
        shown.append(value)
    outputs = [{"output_type": "display_data", "data": formatter.format(item)[0]} for item in shown]
    text = printed.getvalue()
    return ([{"output_type": "stream", "text": text}] if text else []) + outputs


def rendered(cells, folder):
    "The same cells with the outputs that they give now, executed in a fresh namespace of this process."
    from IPython.core.formatters import DisplayFormatter

    before, space, formatter = os.getcwd(), {"__name__": "page"}, DisplayFormatter()
    try:
        os.chdir(folder)
        for position, source, _ in cells:
            yield position, source, run_cell(source, space, formatter)
    finally:
        os.chdir(before)


def differences(path):
    "The cells of a page whose stored texts are not what they give from the committed rows, each a sentence."
    path = Path(path)
    cells = list(code_cells(path) if path.parent.name == "tables" else quoting_cells(path))
    stale = []
    fresh = list(rendered(cells, path.parent))
    for (position, _, stored), (_, _, now) in zip(cells, fresh):
        old, new = shown_texts(stored), shown_texts(now)
        if old != new:
            lines = [
                f"{kind}: stored {was[:120]!r}, now {is_now[:120]!r}"
                for (kind, was), (_, is_now) in zip(old, new)
                if was != is_now
            ]
            stale.append(
                f"{path.name}, cell {position}: {lines[0] if lines else 'another number of outputs'}"
            )
    return stale


def pages():
    "Every table page, and every other page that quotes committed rows; tools/readme.py makes the index anew."
    tables = sorted((ROOT / "nbs/tables").glob("[!_.]*.ipynb"))
    library = [
        path
        for path in sorted((ROOT / "nbs").glob("*/[0-9]*.ipynb"))
        if re.search(r"\.\./results|shown_rows\(|AlignmentTable\(", path.read_text(encoding="utf-8"))
        and quoting_cells(path)
    ]
    prose = [path for path in sorted((ROOT / "nbs").glob("[!_.]*.ipynb")) if path.stem != "index"]
    return tables + library + [path for path in prose if quoting_cells(path)]


if __name__ == "__main__":
    stale = [line for path in (sys.argv[1:] or pages()) for line in differences(path)]
    print("\n".join([*stale, f"{len(stale)} cells are older than the rows they quote"]))
    sys.exit(bool(stale))
