"""Every notebook keeps the habits of notebook_habits.py, and every habit's check is seen to fail."""

import ast
import base64
import json
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_habits import (
    CHECKS,
    Notebook,
    all_notebooks,
    chained_asserts,
    hiding_names,
    violations,
)

ROOT = Path(__file__).resolve().parent.parent
NAME = "45_methods.example.ipynb"

OPENING = """# Example: an idea

> One sentence a stranger understands
"""
INTRODUCTION = """Somebody et al. (2024), [paper](https://example.org/paper).

You will see: how it works.

Read first: 05, 06.
"""
EXPORTED = """#| exports
def double(
    amount,  # a number
):
    "Twice the amount (Eq. 1)."
    return 2 * amount
"""
CLASS = """#| exports
class Example:
    "An example."

    def run(self, amount):
        "The amount."
        return amount
"""


def good_cells():
    "A small notebook that keeps all habits, cell by cell."
    return [
        new_markdown_cell(OPENING),
        new_markdown_cell(INTRODUCTION),
        new_code_cell("#| default_exp methods.example"),
        new_markdown_cell(
            "| symbol | name | range | meaning |\n|---|---|---|---|\n| $a$ | `amount` | real | a number |"
        ),
        new_code_cell("#| export\nimport math"),
        new_code_cell("#| hide\nimport random\nseed = 0"),
        new_markdown_cell("## Doubling\n\nWhy."),
        new_markdown_cell("$$b = 2a \\tag{1}$$"),
        new_code_cell(EXPORTED),
        new_code_cell("double(2)", outputs=[new_output("execute_result", {"text/plain": "4"})]),
        new_code_cell("assert double(2) == 4"),
        new_markdown_cell("## A class"),
        new_code_cell(CLASS),
        new_code_cell("assert Example().run(1) == 1"),
        new_markdown_cell("## Where we differ from the paper and its code\n\nNone."),
        new_markdown_cell("## What the paper reports, what we get"),
        new_code_cell("#| hide\nimport nbdev; nbdev.nbdev_export()"),
    ]


def written(folder, cells, name=NAME):
    "The cells as a notebook file; returns the violations found in it."
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(new_notebook(cells=cells)), encoding="utf-8")
    return violations(folder / name)


def changed(position, old, new):
    "A planted violation: in one cell, `old` becomes `new`."

    def plant(cells):
        assert old in cells[position].source
        cells[position].source = cells[position].source.replace(old, new)

    return plant


def added(source, position=11):
    "A planted violation: one more code cell."
    return lambda cells: cells.insert(position, new_code_cell(source))


def with_output(output):
    "A planted violation: an output that should not be stored."
    return lambda cells: cells[9].outputs.append(output)


def png(size):
    return new_output("display_data", {"image/png": base64.b64encode(b"x" * size).decode()})


LONG_BODY = "".join(f"    amount += {step}\n" for step in range(60))
PLANTED = {
    "a number that is typed into a reading": (
        lambda cells: cells.insert(11, new_code_cell('Reading("It gains 3.5 points.")')),
        "the number 3.5 is typed by hand",
    ),
    "a printed result that is typed": (
        lambda cells: cells.insert(11, new_markdown_cell("The paper prints 64.61 %.")),
        "the printed result 64.61 is typed by hand",
    ),
    "default_exp differs from the file name": (
        changed(2, "methods.example", "methods.other"),
        "the file name says methods.example",
    ),
    "no default_exp": (changed(2, "#| default_exp methods.example", "print(1)"), "default_exp is missing"),
    "an opening cell is missing": (lambda cells: cells.pop(3), "six opening cells"),
    "no title": (changed(0, "# Example", "Example"), "'# title'"),
    "no one-line description": (changed(0, "> One", "One"), "'> one sentence' line"),
    "more than title and description in the first cell": (
        changed(0, "understands\n", "understands\n\nMore.\n"),
        "more than title and description",
    ),
    "no 'You will see'": (changed(1, "You will see", "There is"), "does not say 'You will see"),
    "no 'Read first'": (changed(1, "Read first", "See"), "does not say 'Read first"),
    "'Read first' names a later page": (
        changed(1, "05, 06", "[a later page](60_later.ipynb)"),
        "read 60_later.ipynb first",
    ),
    "no link to the paper": (changed(1, "https://example.org/paper", "paper.html"), "no link to the paper"),
    "no notation table": (changed(3, "|---|---|---|---|", ""), "not a notation table"),
    "code among the exported imports": (changed(4, "import math", "import math\nlimit = 3"), "imports only"),
    "no fixed seed": (changed(5, "seed = 0", ""), "one fixed seed"),
    "no export cell at the end": (lambda cells: cells.pop(), "the last cell is not"),
    "no 'Where we differ'": (changed(14, "Where we differ", "Notes"), "no section 'Where we differ"),
    "no 'What the paper reports'": (
        changed(15, "What the paper reports", "Notes"),
        "no section 'What the paper reports",
    ),
    "too little prose": (
        lambda cells: cells.__setitem__(slice(11, 11), [new_code_cell("1 + 1") for _ in range(9)]),
        "markdown cells for",
    ),
    "too much prose": (
        lambda cells: cells.__setitem__(slice(11, 11), [new_markdown_cell("So.") for _ in range(9)]),
        "markdown cells for",
    ),
    "a long function": (
        changed(8, "    return", LONG_BODY + "    return"),
        "double has a body of 62 lines, at most 35",
    ),
    "a long class": (
        changed(
            12, "    def run", "".join(f"    field_{step} = {step}\n" for step in range(150)) + "    def run"
        ),
        "Example has a class of",
    ),
    "a long method": (
        changed(
            12,
            "        return amount",
            "".join(f"        amount += {step}\n" for step in range(40)) + "        return amount",
        ),
        "run has a body of 42 lines",
    ),
    "no assert": (changed(10, "assert double(2) == 4", "double(2) == 4"), "no visible assert"),
    "several claims in an assert": (
        changed(10, "assert double(2) == 4", "assert double(2) == 4 and double(0) == 0"),
        "makes several claims",
    ),
    "an assert too far away": (
        lambda cells: cells.__setitem__(slice(9, 9), [new_markdown_cell("Then.") for _ in range(2)]),
        "no visible assert",
    ),
    "a hidden assert": (changed(10, "assert", "#| hide\nassert"), "a hidden assert"),
    "an error shown by try": (
        added("try: double(None)\nexcept TypeError as error: print(error)"),
        "a try block shows an error",
    ),
    "an error passed over": (
        added("try: double(None)\nexcept TypeError: pass"),
        "a try block shows an error",
    ),
    "a message kept": (
        added("try: double(None)\nexcept TypeError as error: message = str(error)"),
        "a try block shows an error",
    ),
    "an assert that may not be reached": (
        added("try: double(None)\nexcept TypeError as error: assert str(error)"),
        "a try block shows an error",
    ),
    "a star-import": (added("from math import *"), "star-import from math"),
    "a one-letter parameter": (changed(8, "amount", "a"), "one-letter name 'a'"),
    "a one-letter local name": (changed(8, "    return", "    x = 1\n    return"), "one-letter name 'x'"),
    "a one-letter loop variable": (
        changed(8, "    return", "    sum(i for i in range(3))\n    return"),
        "one-letter name 'i'",
    ),
    "a one-letter exception": (
        changed(8, "    return", "    try: pass\n    except ValueError as e: raise\n    return"),
        "one-letter name 'e'",
    ),
    "a name that hides what it holds": (
        added("kept = [double(2)]"),
        "the name 'kept' does not say what it holds",
    ),
    "a comprehension that hides what it holds": (
        added("[double(one) for one in (1, 2)]"),
        "the name 'one' does not say what it holds",
    ),
    "a private helper beside its class": (
        added('#| export\ndef _run(example: "Example"):\n    "Again."\n    return example.run(1)', 13),
        "_run is a helper of Example: make it a method",
    ),
    "a helper before its class": (
        added('#| export\ndef run_it(example: "Example"):\n    "Again."\n    return example.run(1)', 9),
        "run_it stands before Example, which it takes",
    ),
    "global": (changed(8, "    return", "    global total\n    return"), "global total"),
    "a mutable module-level name": (
        changed(8, "def double", "known = {}\ndef double"),
        "mutable module or class state known",
    ),
    "a mutable made by a call": (
        changed(8, "def double", "known = dict(one=1)\ndef double"),
        "mutable module or class state known",
    ),
    "a mutable class attribute": (
        changed(12, "    def run", "    cache = []\n\n    def run"),
        "mutable module or class state cache",
    ),
    "imports mixed with code": (added("import os\nos.sep"), "imports and other code in one cell"),
    "no docstring": (changed(8, '    "Twice the amount (Eq. 1)."\n', ""), "double has no docstring"),
    "an unsafe torch.load": (added("torch.load" + "('weights.pt')"), "torch.load without weights_only=True"),
    "pickle": (added("pickle." + "load(file)"), "can run code from the file"),
    "numpy's pickle": (added("np.load('points.npy', allow_pickle=True)"), "can run code from the file"),
    "remote code": (added("model('name', trust_remote_code=True)"), "runs remote code"),
    "a stored error": (
        with_output(new_output("error", ename="ValueError", evalue="", traceback=[])),
        "a stored error, ValueError",
    ),
    "stored stderr": (with_output(new_output("stream", name="stderr", text="warning")), "stored stderr"),
    "a stored progress bar": (
        with_output(new_output("stream", name="stdout", text=" 50%|#####     | 5/10")),
        "a stored progress bar",
    ),
    "a stored rate": (
        with_output(new_output("stream", name="stdout", text="12.5it/s")),
        "a stored progress bar",
    ),
    "%time": (added("%time double(2)"), "%time"),
    "a machine's path in the code": (
        added("folder = '" + "/home" + "/somebody/images'"),
        "the machine's path /home",
    ),
    "a machine's path in an output": (
        with_output(new_output("stream", name="stdout", text="saved in " + "/tmp" + "/x12")),
        "the machine's path /tmp",
    ),
    "too many figures": (lambda cells: cells[9].outputs.extend([png(100)] * 7), "7 figures, at most 6"),
    "a figure that a blind reader cannot know": (with_output(png(100)), "a figure without a line #| fig-alt"),
    "a large figure": (with_output(png(41_000)), "a figure of 41 kB, at most 40"),
    "a large embedded figure": (
        with_output(
            new_output("display_data", {"text/html": f'<img src="data:image/png;base64,{"A" * 60_000}">'})
        ),
        "a figure of 45 kB",
    ),
    "a large notebook": (
        with_output(new_output("stream", name="stdout", text="0123456789\n" * 30_000)),
        "kB, at most 300",
    ),
    "code that does not parse": (added("def"), "does not parse"),
}


@pytest.mark.parametrize("path", all_notebooks(ROOT), ids=lambda path: path.name)
def test_keeps_the_habits(path):
    item = violations(path)
    assert not item, "\n".join(item)


SCRIPTS = [path for folder in ("tests", "tools") for path in sorted((ROOT / folder).glob("*.py"))]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_keep_the_habits_of_names_and_claims(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert list(hiding_names(tree)) == []
    assert list(chained_asserts(tree)) == []


def test_the_example_keeps_the_habits(tmp_path):
    assert written(tmp_path, good_cells()) == []


def test_an_expected_error_is_an_assert(tmp_path):
    cells = good_cells()
    cells[10].source = 'with expect_error(TypeError, "unsupported operand"): double(None)'
    assert written(tmp_path, cells) == []


def test_a_try_block_that_does_more_is_no_demonstration(tmp_path):
    cells = good_cells()
    cells.insert(11, new_code_cell("try: number = double(None)\nexcept TypeError: number = 0"))
    assert written(tmp_path, cells) == []


@pytest.mark.parametrize("violation", PLANTED)
def test_a_planted_violation_is_seen(tmp_path, violation):
    plant, message = PLANTED[violation]
    cells = good_cells()
    plant(cells)
    actual = written(tmp_path, cells)
    assert any(message in sentence for sentence in actual), actual


def test_every_check_is_planted_against(tmp_path):
    "Each check of a library notebook is triggered by some planted violation."
    triggered = set()
    for number, (plant, _) in enumerate(PLANTED.values()):
        cells = good_cells()
        plant(cells)
        if "does not parse" not in str(written(tmp_path / str(number), cells)):
            notebook = Notebook.read(tmp_path / str(number) / NAME)
            triggered |= {check for check, _ in CHECKS if any(check(notebook))}
    assert triggered >= {check for check, kinds in CHECKS if "library" in kinds}


@pytest.mark.parametrize(
    "name", ["9_short.ipynb", "45_Methods.ipynb", "45_methods-example.ipynb", "example.ipynb"]
)
def test_a_badly_named_notebook_is_seen(tmp_path, name):
    assert any("is not NN_module.path" in sentence for sentence in written(tmp_path, good_cells(), name))


@pytest.mark.parametrize(
    "cell, message",
    [
        (new_markdown_cell("Diff-II gains 3.5 points."), "the number 3.5 is typed by hand"),
        (new_code_cell('Reading(f"It gains 3.5 points, {view}.")'), "the number 3.5 is typed by hand"),
        (new_code_cell("\n".join(f"line_{number} = 1" for number in range(61))), "lines of code, at most 60"),
    ],
)
def test_what_a_table_page_must_not_do_is_seen(tmp_path, cell, message):
    assert any(message in sentence for sentence in written(tmp_path / "tables", [cell], "few_shot.ipynb"))


@pytest.mark.parametrize(
    "cell, message",
    [
        (new_markdown_cell("The paper prints 64.61 %."), "the printed result 64.61 is typed by hand"),
        (new_code_cell("printed = [54.56, 1.0]"), "the printed result 54.56 is typed by hand"),
        (
            new_markdown_cell("## What the paper reports, what we get\n\nA gain of 1.25 points."),
            "the number 1.25 is typed into what the paper reports",
        ),
    ],
)
@pytest.mark.parametrize("folder", ["tables", "."])
def test_a_result_of_a_paper_that_is_typed_is_seen(tmp_path, cell, message, folder):
    assert any(message in sentence for sentence in written(tmp_path / folder, [cell], "page.ipynb"))


@pytest.mark.parametrize(
    "cell",
    [
        new_markdown_cell("Our five splits gave 64.61 %."),
        new_code_cell("assert level == 54.56"),
        new_code_cell("sizes = [0.5, 30.0, 25.0]"),
        new_markdown_cell("## What the paper reports, what we get\n\nIts rate is $p=0.5$, see `rate=0.1`."),
    ],
)
def test_other_numbers_are_no_results_of_a_paper(tmp_path, cell):
    sentences_seen = written(tmp_path / "tables", [cell], "page.ipynb")
    assert not any("typed" in sentence and "result" in sentence for sentence in sentences_seen)


@pytest.mark.parametrize(
    "text",
    [
        "See [the paper](https://arxiv.org/abs/2408.16266).",
        "arXiv 2408.16266 paints with Stable Diffusion 1.5; `s=0.3` is a setting.",
        "    papermill few.ipynb -p share 0.3",
    ],
)
def test_decimals_that_are_names_or_settings_are_no_typed_numbers(tmp_path, text):
    sentences_seen = written(tmp_path / "tables", [new_markdown_cell(text)], "few_shot.ipynb")
    assert not any("typed by hand" in sentence for sentence in sentences_seen)


def test_the_sentences_of_a_reading_are_no_code(tmp_path):
    sentences = "\n".join(f"Sentence {number}." for number in range(80))
    sentences_seen = written(
        tmp_path / "tables", [new_code_cell(f'Reading(f"""\n{sentences}\n""")')], "few_shot.ipynb"
    )
    assert not any("lines of code" in sentence for sentence in sentences_seen)
