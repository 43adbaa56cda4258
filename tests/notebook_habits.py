"""The habits every notebook keeps, as checks a machine can make.

    python tests/notebook_habits.py nbs/methods/06_methods.diff_ii.ipynb [more]   # no argument: all of nbs/

prints one line per violation and ends with status 1 if there is any. tests/test_notebooks.py runs the same
checks over all notebooks, and every check is seen there to fail on a planted violation.

A library notebook is nbs/FOLDER/NN_module.path.ipynb. A table notebook lies in nbs/tables/ and exports
nothing. A notebook in nbs/ itself is prose. The last two are exempt from what concerns exports: `applies` of
each check says which kinds it reads. How long a line may be and how it is broken is ruff's business.
"""

import ast
import base64
import csv
import functools
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import sidebar  # noqa: E402

MARKDOWN_PER_CODE = (0.6, 1.5)
FUNCTION_LINES, CLASS_LINES, MODULE_LINES = 35, 150, 500
ASSERT_WITHIN_CELLS = 3
LARGEST_KB = 300
TABLE_LINES = 60  # of code on a table page; the sentences of a reading are not code
MOST_FIGURES, LARGEST_FIGURE_KB = 6, 40
HIDING_NAMES = ("one", "told", "found", "kept", "place")
IMAGE_TYPES = ("image/png", "image/jpeg", "image/svg+xml")
MUTABLE_MAKERS = (
    "list dict set bytearray defaultdict OrderedDict Counter deque array zeros ones empty full arange "
    "tensor default_rng Generator"
).split()
FOLDERS = tuple(folder for folder, _ in sidebar.SECTIONS)
PAPER_FAMILIES = ("mixing.", "balance.", "concepts.", "generators.", "methods.")
IMPORTS = (ast.Import, ast.ImportFrom)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
MACHINE_PATH = re.compile(r"(?:^|[^A-Za-z0-9_.:/])(/(?:work|farm|root|home|Users|tmp)/[^\s'\"`)]*)")
PROGRESS_BAR = re.compile(r"\d+%\|.*\||\d+(\.\d+)?(it/s|s/it)\b|\r(?!\n)")


def is_import(node):
    "an import, or imports that only annotations need: `if TYPE_CHECKING:`, with Any for them otherwise"
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        otherwise = all(
            isinstance(inner, ast.Assign) and ast.unparse(inner.value) == "Any" for inner in node.orelse
        )
        return otherwise and all(isinstance(inner, IMPORTS) for inner in node.body)
    return isinstance(node, IMPORTS)


@dataclass
class Cell:
    "One cell, with what the checks ask of it."

    position: int
    kind: str
    source: str
    outputs: list = field(default_factory=list)
    tags: tuple = ()

    @functools.cached_property
    def directives(self):
        "`#| name value` lines at the top of the cell, as a dict."
        actual = {}
        for line in self.source.splitlines():
            match = re.match(r"\s*#\s*\|\s*([\w-]+):?\s*(.*)", line)
            if match:
                actual[match[1]] = match[2].strip()
            elif line.strip():
                break
        return actual

    @property
    def exported(self):
        return self.kind == "code" and bool({"export", "exports", "exporti"} & set(self.directives))

    @property
    def hidden(self):
        return "hide" in self.directives

    @functools.cached_property
    def tree(self):
        "The parsed code, notebook magics left out; None for markdown."
        if self.kind != "code" or self.source.lstrip().startswith("%%"):
            return None
        return ast.parse(re.sub(r"^(\s*)(?:%|!(?!=)).*$", r"\1pass", self.source, flags=re.MULTILINE))

    @property
    def line_count(self):
        "Lines of code, the directives and blank ends left out."
        lines = [line for line in self.source.splitlines() if not re.match(r"\s*#\s*\|", line)]
        return len("\n".join(lines).strip().splitlines())

    def texts(self):
        "What the outputs say, images and embedded data left out."
        for output in self.outputs:
            if output["output_type"] == "stream":
                yield "".join(output["text"])
            for mime, data in output.get("data", {}).items():
                if mime.startswith("text/") and isinstance(data, (str, list)):
                    yield re.sub(r"data:[\w/+.-]+;base64,[\w+/=\s]*", "", "".join(data))

    def figures(self):
        "Sizes in bytes of all images in the outputs."
        for output in self.outputs:
            data = output.get("data", {})
            for mime in IMAGE_TYPES:
                if mime in data:
                    content = "".join(data[mime])
                    yield len(content.encode()) if "svg" in mime else len(base64.b64decode(content))
                    break
            else:
                for embedded in re.findall(
                    r"data:image/[\w+.-]+;base64,([\w+/=]*)", "".join(data.get("text/html", ""))
                ):
                    yield len(embedded) * 3 // 4


def reading_number(path):
    "The place of a page in the line of reading: the folders' order, then the number of the file."
    path = Path(path)
    folder = path.resolve().parent.name
    match = re.match(r"\d+", path.name)
    return 1000 * (FOLDERS.index(folder) if folder in FOLDERS else 99) + (int(match[0]) if match else 999)


@dataclass
class Notebook:
    "A notebook read from disk; `kind` is library, table or prose."

    path: Path
    cells: list

    @classmethod
    def read(cls, path):
        path = Path(path)
        raw = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            path,
            [
                Cell(
                    position,
                    cell["cell_type"],
                    "".join(cell["source"]),
                    cell.get("outputs", []),
                    tuple(cell["metadata"].get("tags", ())),
                )
                for position, cell in enumerate(raw["cells"])
            ],
        )

    @property
    def kind(self):
        if self.path.parent.name == "tables":
            return "table"
        return "prose" if self.path.parent.name == "nbs" else "library"

    @property
    def number(self):
        return reading_number(self.path)

    @property
    def module(self):
        return re.sub(r"^\d*_", "", self.path.stem)

    @property
    def code(self):
        return [cell for cell in self.cells if cell.kind == "code" and cell.source.strip()]

    @property
    def exported(self):
        return [cell for cell in self.code if cell.exported]


def check_name(notebook):
    "the file is called NN_module.path.ipynb and its default_exp is module.path"
    if not re.fullmatch(r"\d\d_[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\.ipynb", notebook.path.name):
        yield f"the file name {notebook.path.name} is not NN_module.path.ipynb"
    actual = [cell.directives["default_exp"] for cell in notebook.code if "default_exp" in cell.directives]
    if actual != [notebook.module]:
        yield f"default_exp is {actual or 'missing'}, the file name says {notebook.module}"


def check_opening(notebook):
    """the six opening cells are there, in order; the first is front matter, of which the site shows title and
    description only"""
    kinds = ["markdown", "markdown", "code", "markdown", "code", "code"]
    opening = notebook.cells[:6]
    if [cell.kind for cell in opening] != kinds:
        yield f"the six opening cells are {[cell.kind for cell in opening]}, not {kinds}"
        return
    title, introduction, default_exp, notation, imports, page = opening
    lines = title.source.splitlines()
    if not lines[0].startswith("# "):
        yield "cell 0 does not begin with a '# title'"
    if not any(line.startswith("> ") for line in lines):
        yield "cell 0 has no '> one sentence' line"
    if any(line.strip() and not line.startswith(">") for line in lines[1:]):
        yield "cell 0 holds more than title and description, which the site drops"
    for words in ("You will see", "Read first"):
        if words.lower() not in introduction.source.lower():
            yield f"cell 1 does not say '{words}: ...'"
    yield from check_read_first(notebook, introduction)
    if notebook.module.startswith(PAPER_FAMILIES) and not re.search(r"https?://", introduction.source):
        yield "cell 1 gives no link to the paper"
    if list(default_exp.directives) != ["default_exp"]:
        yield "cell 2 is not the '#| default_exp' cell"
    if not re.search(r"^\|[\s:|-]*-[\s:|-]*\|?\s*$", notation.source, flags=re.MULTILINE):
        yield "cell 3 is not a notation table"
    if not imports.exported or not all(is_import(node) for node in imports.tree.body):
        yield "cell 4 is not an '#| export' cell of imports only"
    random = any(re.search(r"rand|Generator\(|default_rng|shuffle", cell.source) for cell in notebook.code)
    if not page.hidden or (random and not re.search(r"seed|default_rng", page.source)):
        yield (
            "cell 5 is not the '#| hide' cell with this page's imports and one fixed seed (where anything "
            "is random)"
        )


def check_read_first(notebook, introduction):
    "'Read first' names only pages that come before"
    for line in re.findall(r"read first:?(.*)", introduction.source, flags=re.IGNORECASE):
        for link in re.findall(r"\]\(([^)#]+\.ipynb)", line):
            if reading_number(notebook.path.parent / link) >= notebook.number:
                yield f"cell 1 says to read {Path(link).name} first, which comes later"


def check_closing(notebook):
    "the last cell exports, a page about a paper says where it differs, and a method what it reaches"
    last = notebook.cells[-1]
    if not (last.kind == "code" and last.hidden and "nbdev_export()" in last.source):
        yield "the last cell is not '#| hide' with nbdev.nbdev_export()"
    prose = "\n".join(cell.source for cell in notebook.cells if cell.kind == "markdown")
    if notebook.module.startswith(PAPER_FAMILIES) and not re.search(
        r"^#+ Where we differ", prose, flags=re.MULTILINE
    ):
        yield "there is no section 'Where we differ from the paper and its code'"
    if notebook.module.startswith("methods.") and not re.search(
        r"^#+ What the paper reports", prose, flags=re.MULTILINE
    ):
        yield "there is no section 'What the paper reports, what we get'"


def check_ratio(notebook):
    "there are between 0.6 and 1.5 markdown cells for each code cell that a reader sees"
    markdown = sum(cell.kind == "markdown" for cell in notebook.cells)
    code = sum(not cell.hidden and "default_exp" not in cell.directives for cell in notebook.code)
    ratio = markdown / max(1, code)
    if not MARKDOWN_PER_CODE[0] <= ratio <= MARKDOWN_PER_CODE[1]:
        yield (
            f"{markdown} markdown cells for {code} visible code cells is {ratio:.2f}, not within "
            f"{MARKDOWN_PER_CODE}"
        )


def code_lines(node, lines, body_only=False):
    "Lines of code in a function or class: blank lines, comments and signatures are not counted."
    signatures = set()
    for inner in ast.walk(node):
        if isinstance(inner, FUNCTIONS) and (inner is not node or body_only):
            signatures |= set(range(inner.lineno, inner.body[0].lineno))
    first = node.lineno if isinstance(node, ast.ClassDef) else node.body[0].lineno
    return sum(
        bool(lines[number - 1].strip()) and not lines[number - 1].lstrip().startswith("#")
        for number in range(first, node.body[-1].end_lineno + 1)
        if number not in signatures
    )


def check_lengths(notebook):
    "an exported function has at most 35 lines in its body, a class 150 lines of code, and a module 500"
    total = 0
    for cell in notebook.exported:
        lines = cell.source.splitlines()
        total += code_lines(cell.tree, lines) if cell.tree.body else 0
        for node in ast.walk(cell.tree):
            if isinstance(node, FUNCTIONS) and not is_command(node):
                count, limit, kind = code_lines(node, lines, body_only=True), FUNCTION_LINES, "body"
            elif isinstance(node, ast.ClassDef):
                count, limit, kind = code_lines(node, lines), CLASS_LINES, "class"
            else:
                continue
            if count > limit:
                yield f"cell {cell.position}: {node.name} has a {kind} of {count} lines, at most {limit}"
    if total > MODULE_LINES:
        yield f"the module has {total} lines of code, at most {MODULE_LINES}"


def is_command(node):
    "Whether a function is a command of the command line, which names all its options."
    return any("command" in ast.unparse(decorator) for decorator in node.decorator_list)


def is_expected(node):
    "Whether this is a `with` statement that expects an error."
    items = node.items if isinstance(node, ast.With) else ()
    return any(ast.unparse(item.context_expr).startswith("expect_error(") for item in items)


def has_assert(cell):
    "Whether a cell asserts something, or expects an error."
    return any(
        isinstance(node, ast.Assert) or is_expected(node)
        for node in ast.walk(cell.tree or ast.Module([], []))
    )


def only_shows(handler):
    "Whether an `except` does no more than pass, print, assert, or keep the error's message."
    for node in handler.body:
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        keeps = isinstance(node, ast.Assign) and handler.name in names
        prints = isinstance(node, ast.Expr) and ast.unparse(node).startswith("print(")
        if not (keeps or prints or isinstance(node, (ast.Pass, ast.Assert))):
            return False
    return True


def check_shown_errors(notebook):
    "an error that is shown is expected by expect_error, since a `try` block says nothing when none is raised"
    for cell in notebook.code:
        for node in ast.walk(cell.tree or ast.Module([], [])):
            if isinstance(node, ast.ExceptHandler) and not cell.exported and only_shows(node):
                yield (
                    f"cell {cell.position}: a try block shows an error (line {node.lineno}); use `with "
                    "expect_error(...)`"
                )


def check_asserts(notebook):
    "a visible assert or expect_error stands within three cells after each exports cell; no assert is hidden"
    for cell in notebook.code:
        if cell.hidden and has_assert(cell):
            yield f"cell {cell.position}: a hidden assert; show it, or make it a pytest"
        if "exports" not in cell.directives:
            continue
        after = notebook.cells[cell.position + 1 : cell.position + 1 + ASSERT_WITHIN_CELLS]
        if not any(has_assert(other) for other in after if not other.hidden and not other.exported):
            yield (
                f"cell {cell.position}: no visible assert within {ASSERT_WITHIN_CELLS} cells after this "
                "exports cell"
            )


def check_star_imports(notebook):
    "nothing is imported by a star"
    for cell in notebook.code:
        for node in ast.walk(cell.tree or ast.Module([], [])):
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                yield f"cell {cell.position}: star-import from {node.module}"


def check_names(notebook):
    "no parameter or assigned name in exported code has one letter"
    for cell in notebook.exported:
        for node in ast.walk(cell.tree):
            name = node.arg if isinstance(node, ast.arg) else None
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                name = node.id
            if isinstance(node, ast.ExceptHandler):
                name = node.name
            if name and len(name) == 1 and name != "_":
                yield f"cell {cell.position}: one-letter name {name!r} (line {node.lineno} of the cell)"


def hiding_names(tree):
    "Variables, parameters and functions whose name says nothing about what they hold, with their lines."
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.arg in HIDING_NAMES:
            yield node.arg, node.lineno
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in HIDING_NAMES:
            yield node.id, node.lineno
        if isinstance(node, FUNCTIONS) and node.name in HIDING_NAMES:
            yield node.name, node.lineno


def check_hiding_names(notebook):
    "nothing is called one, told, found, kept or place: a name says what it holds"
    for cell in notebook.code:
        for name in sorted({name for name, _ in hiding_names(cell.tree or ast.Module([]))}):
            yield f"cell {cell.position}: the name '{name}' does not say what it holds"


def chained_asserts(tree):
    "Lines of asserts that join several claims with `and`: a failure would not say which."
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assert)
            and isinstance(node.test, ast.BoolOp)
            and isinstance(node.test.op, ast.And)
        ):
            yield node.lineno


def check_claims(notebook):
    "one claim per assert"
    for cell in notebook.code:
        for line in chained_asserts(cell.tree or ast.Module([])):
            yield f"cell {cell.position}: the assert in line {line} makes several claims"


def reading_texts(tree):
    "The texts that become sentences of a page: what is given to Reading or Markdown."
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("Reading", "Markdown"):
            yield from node.args[:1]


def check_table_length(notebook):
    "a table page has at most 60 lines of code; the sentences of a reading do not count"
    count = 0
    for cell in notebook.code:
        sentences = {
            line
            for text in reading_texts(cell.tree or ast.Module([]))
            for line in range(text.lineno + 1, text.end_lineno)
        }
        lines = enumerate(cell.source.splitlines(), 1)
        count += sum(
            bool(line.strip()) and not line.lstrip().startswith("#") and number not in sentences
            for number, line in lines
        )
    if count > TABLE_LINES:
        yield f"{count} lines of code, at most {TABLE_LINES}"


NAMED_NUMBERS = re.compile(  # decimals that belong to a name, a link or a command
    r"arXiv \d+\.\d+|Stable Diffusion \d\.\d|\]\([^)]*\)|`[^`]*`|(?m:^    .*$)|"
    r"[Vv]ersion \d+\.\d+|\d\.\d+\.\d+"
)


def literal_texts(node):
    "The texts that stand literally in an expression, without what is computed inside an f-string."
    if isinstance(node, ast.FormattedValue):
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for inner in ast.iter_child_nodes(node):
        yield from literal_texts(inner)


def check_typed_numbers(notebook):
    """no decimal is typed by hand into a reading, or into any sentence of a table page: numbers come from the
    rows"""
    for cell in notebook.cells:
        texts = [cell.source] if cell.kind == "markdown" and notebook.kind == "table" else []
        for node in reading_texts(cell.tree or ast.Module([])) if cell.kind == "code" else ():
            texts += literal_texts(node)
        for text in texts:
            for number in re.findall(r"\d+\.\d+", NAMED_NUMBERS.sub("", text)):
                yield f"cell {cell.position}: the number {number} is typed by hand"


@functools.cache
def recorded_values():
    "The results that papers print, as texts of three digits or more, from the files that hold them."
    lines = [
        line
        for file in sorted((ROOT / "nbs" / "results" / "paper").glob("*.csv"))
        for line in csv.DictReader(file.open(encoding="utf-8"))
    ]
    texts = {f"{abs(float(line['value'])):g}" for line in lines}
    return frozenset(text for text in texts if "." in text and len(text.replace(".", "").lstrip("0")) >= 3)


def is_recorded(number):
    "Whether a number, as it is written, is a result that a paper prints."
    return f"{abs(float(number)):g}" in recorded_values()


def check_printed_numbers(notebook):
    "results that a paper prints are read from the files that hold them, never typed"
    for cell in notebook.cells:
        if cell.kind == "markdown":
            section = re.split(r"(?m)^## What the papers? reports?, what we get$", cell.source)
            words = re.split(r"(?m)^## ", section[1])[0] if len(section) > 1 else ""
            for number in re.findall(r"\d+\.\d+", NAMED_NUMBERS.sub("", re.sub(r"\$[^$]*\$", "", words))):
                yield f"cell {cell.position}: the number {number} is typed into what the paper reports"
            for paragraph in NAMED_NUMBERS.sub("", cell.source).split("\n\n"):
                if re.search(r"\b(papers?|print|prints|printed|reports?|reported)\b", paragraph):
                    for number in filter(is_recorded, re.findall(r"\d*\.\d+", paragraph)):
                        yield f"cell {cell.position}: the printed result {number} is typed by hand"
            continue
        tree = cell.tree or ast.Module([])
        expected = {
            inner for node in ast.walk(tree) if isinstance(node, ast.Assert) for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            typed = isinstance(node, ast.Constant) and type(node.value) is float and node not in expected
            if typed and is_recorded(node.value):
                yield f"cell {cell.position}: the printed result {node.value} is typed by hand"


def own_class(function, classes):
    "The class among `classes` that the function takes first, or None."
    parameters = [*function.args.posonlyargs, *function.args.args]
    annotation = parameters[0].annotation if parameters else None
    name = annotation and ast.unparse(annotation).strip("'\"")
    return name if name in classes else None


def check_helpers(notebook):
    "a class stands before the functions that take it, and a private helper of a class is its method"
    bodies = [node for cell in notebook.code if cell.exported and cell.tree for node in cell.tree.body]
    order = {node.name: position for position, node in enumerate(bodies) if isinstance(node, ast.ClassDef)}
    for position, node in enumerate(bodies):
        owner = own_class(node, order) if isinstance(node, FUNCTIONS) else None
        if owner and order[owner] > position:
            yield f"{node.name} stands before {owner}, which it takes"
        if owner and node.name.startswith("_"):
            yield f"{node.name} is a helper of {owner}: make it a method"


def is_mutable(value):
    "Whether an expression makes something that can be changed in place."
    if isinstance(value, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)):
        return True
    if isinstance(value, ast.BinOp):
        return is_mutable(value.left) or is_mutable(value.right)
    if isinstance(value, ast.Call):
        called = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return called in MUTABLE_MAKERS
    return False


def check_state(notebook):
    "no `global`, and nothing mutable at module or class level"
    for cell in notebook.exported:
        for node in ast.walk(cell.tree):
            if isinstance(node, ast.Global):
                yield f"cell {cell.position}: global {', '.join(node.names)}"
        bodies = [cell.tree.body] + [node.body for node in cell.tree.body if isinstance(node, ast.ClassDef)]
        for node in (node for body in bodies for node in body):
            if (
                isinstance(node, (ast.Assign, ast.AnnAssign))
                and node.value is not None
                and is_mutable(node.value)
            ):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                yield f"cell {cell.position}: mutable module or class state {ast.unparse(target)}"


def check_mixed_imports(notebook):
    "a cell imports or does something, not both"
    for cell in notebook.code:
        opening_or_closing = cell.hidden and (cell.position == 5 or cell.position == len(notebook.cells) - 1)
        if cell.tree is None or opening_or_closing:
            continue
        imports = [is_import(node) for node in cell.tree.body]
        if any(imports) and not all(imports):
            yield f"cell {cell.position}: imports and other code in one cell"


def check_docstrings(notebook):
    "every public exported function and class has a docstring"
    for cell in notebook.exported:
        for node in cell.tree.body:
            if (
                isinstance(node, (*FUNCTIONS, ast.ClassDef))
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ):
                yield f"cell {cell.position}: {node.name} has no docstring"


def check_safety(notebook):
    "weights are loaded without running code from the file"
    for cell in notebook.code:
        for call in (
            node for node in ast.walk(cell.tree or ast.Module([], [])) if isinstance(node, ast.Call)
        ):
            called = ast.unparse(call.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            if called == "torch.load" and keywords.get("weights_only") != "True":
                yield f"cell {cell.position}: torch.load without weights_only=True"
            if (
                called.split(".")[0] in ("pickle", "joblib")
                and "load" in called
                or keywords.get("allow_pickle") == "True"
            ):
                yield f"cell {cell.position}: {called} can run code from the file"
            if keywords.get("trust_remote_code") == "True":
                yield f"cell {cell.position}: {called} runs remote code"


def check_outputs(notebook):
    """no errors, stderr, progress bars or timings are stored, and no path of somebody's machine stands
    anywhere"""
    for cell in notebook.cells:
        for output in cell.outputs:
            if output["output_type"] == "error":
                yield f"cell {cell.position}: a stored error, {output.get('ename')}"
            if output.get("name") == "stderr":
                yield f"cell {cell.position}: stored stderr"
        for text in cell.texts():
            if PROGRESS_BAR.search(text):
                yield f"cell {cell.position}: a stored progress bar"
        if re.search(r"^\s*%%?time", cell.source, flags=re.MULTILINE) and cell.kind == "code":
            yield f"cell {cell.position}: %time, whose output changes with every run"
        for text in (cell.source, *cell.texts()):
            for item in MACHINE_PATH.findall(text):
                yield f"cell {cell.position}: the machine's path {item}"


def check_sizes(notebook):
    "the file is at most 300 kB with at most 6 figures of at most 40 kB each"
    size = notebook.path.stat().st_size / 1000
    if size > LARGEST_KB:
        yield f"the notebook has {size:.0f} kB, at most {LARGEST_KB}"
    figures = [(cell.position, size / 1000) for cell in notebook.cells for size in cell.figures()]
    if len(figures) > MOST_FIGURES:
        yield f"{len(figures)} figures, at most {MOST_FIGURES}"
    for position, size in figures:
        if size > LARGEST_FIGURE_KB:
            yield f"cell {position}: a figure of {size:.0f} kB, at most {LARGEST_FIGURE_KB}"


def check_alternative_texts(notebook):
    "every cell with a figure says in a `#| fig-alt` line what is seen"
    for cell in notebook.code:
        if list(cell.figures()) and not cell.directives.get("fig-alt"):
            yield f"cell {cell.position}: a figure without a line #| fig-alt"


def assigned_names(tree):
    "Names that the top level of a cell assigns; functions and comprehensions have names of their own."
    own = (*FUNCTIONS, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    names, nodes = set(), list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        nodes += [] if isinstance(node, own) else list(ast.iter_child_nodes(node))
    return names


def check_parameters(notebook):
    "a table notebook has exactly one cell tagged parameters, assigns none of them again, and exports nothing"
    tagged = [cell for cell in notebook.cells if "parameters" in cell.tags]
    if len(tagged) != 1:
        yield f"{len(tagged)} cells are tagged 'parameters', not one"
    parameters = {name for cell in tagged for name in assigned_names(cell.tree)}
    for cell in notebook.code:
        if cell.exported or "default_exp" in cell.directives:
            yield f"cell {cell.position}: a table notebook exports nothing"
        if "parameters" not in cell.tags and (
            again := assigned_names(cell.tree) & parameters if cell.tree else ()
        ):
            yield f"cell {cell.position}: assigns the parameter '{min(again)}' again"


EVERY, LIBRARY, TABLE = ("library", "table", "prose"), ("library",), ("table",)
CHECKS = (
    (check_name, LIBRARY),
    (check_opening, LIBRARY),
    (check_closing, LIBRARY),
    (check_ratio, LIBRARY),
    (check_lengths, LIBRARY),
    (check_asserts, LIBRARY),
    (check_claims, EVERY),
    (check_shown_errors, EVERY),
    (check_star_imports, EVERY),
    (check_names, LIBRARY),
    (check_hiding_names, EVERY),
    (check_helpers, LIBRARY),
    (check_state, LIBRARY),
    (check_mixed_imports, EVERY),
    (check_docstrings, LIBRARY),
    (check_safety, EVERY),
    (check_outputs, EVERY),
    (check_sizes, EVERY),
    (check_alternative_texts, EVERY),
    (check_printed_numbers, EVERY),
    (check_parameters, TABLE),
    (check_table_length, TABLE),
    (check_typed_numbers, EVERY),
)


def violations(path):
    "All violations in one notebook, each a sentence."
    notebook = Notebook.read(path)
    broken = []
    for cell in notebook.code:
        try:
            cell.tree
        except SyntaxError as error:
            broken.append(f"cell {cell.position}: does not parse: {error.msg}")
    if broken:
        return broken
    return [item for check, applies in CHECKS if notebook.kind in applies for item in check(notebook)]


def all_notebooks(root):
    "Every notebook of the project, in reading order."
    nbs = Path(root) / "nbs"
    library = sorted(nbs.glob("*/[0-9]*.ipynb"), key=reading_number)
    return [*sorted(nbs.glob("[!_.]*.ipynb")), *library, *sorted(nbs.glob("tables/[!_.]*.ipynb"))]


def main(arguments):
    paths = [Path(argument) for argument in arguments] or all_notebooks(
        Path(__file__).resolve().parent.parent
    )
    count = 0
    for path in paths:
        for violation in violations(path):
            count += 1
            print(f"{path.name}: {violation}")
    print(f"{len(paths)} notebooks, {count} violations")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
