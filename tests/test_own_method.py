"""A method of one's own, as a stranger writes it: one file, named in GENAUG_METHODS; nothing else is touched.

The files are taken from the page "Write your own method" and from the guide, so that neither can drift from
what works.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pytest
from skimage.color import rgb2lab
from toy_sets import noise_pictures
from toy_world import toy_backbone, toy_photographs

from genaug.arms import chosen_use, make_arm
from genaug.choices import (
    AsPainted,
    Filter,
    Finish,
    FromPhotograph,
    LabelRule,
    Naming,
    Prompting,
    Start,
    Target,
)
from genaug.cli import run
from genaug.comparison_folder import read_comparison
from genaug.contracts import Augmenter, Mixer, Part, PartnerRule, declare_method
from genaug.core import LabeledImages
from genaug.identity import Identity
from genaug.messages import GenaugError
from genaug.methods.colour_transfer import LabTransfer, colour_transfer, move_statistics
from genaug.plans import Budget
from genaug.recipe import Recipe
from genaug.registry import find_method, method_names, own_module
from genaug.schedule import Showing, SwapClass, TrainingSchedule, TrainingUse
from genaug.settings import Bound, check_settings

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "nbs" / "methods" / "15_methods.colour_transfer.ipynb"
AUGMENT = ("augment", "digits", "OUT", "--copies", "1", "--shots", "1", "--quiet")


def cells(path):
    return ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]


def renamed(text):
    return text.replace("colour-transfer", "my-transfer").replace("ColourTransfer", "MyTransfer")


def page_text():
    "The file that the page shows, from its exported cells, under names of its own."
    parts = [re.sub(r"^#\|.*\n", "", cell) for cell in cells(PAGE) if re.match(r"#\| exports?\n", cell)]
    text = "\n\n\n".join(parts) + "\n"
    return renamed(text)


def arguments(out, method="my-transfer"):
    return [str(out) if word == "OUT" else word for word in AUGMENT] + ["--method", method]


def content(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def own_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "my_method.py"
    path.write_text(page_text(), encoding="utf-8")
    return path


TWICE = """
import shutil, sys
from pathlib import Path
from genaug.cli import run
out, *arguments = sys.argv[1:]
assert run(arguments) == 0
shutil.copytree(out, out + "-first")
pictures = sorted(Path(out, "train").rglob("*.png"))
for path in (*pictures[::2], Path(out, "train", "metadata.jsonl"), Path(out, "train", "classes.json")):
    path.unlink()
sys.exit(run(arguments))
"""


@pytest.fixture(scope="module")
def made(own_file):
    "A set of the file's method by the command line, in a process of its own; half was painted twice."
    out = own_file.parent / "out"
    done = subprocess.run(
        [sys.executable, "-c", TWICE, str(out), *arguments(out)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "GENAUG_METHODS": str(own_file)},
    )
    assert done.returncode == 0, done.stderr
    return out


# ---------------------------------------------------------------- the page's file


def test_the_file_has_about_60_lines():
    assert 50 <= sum(bool(line.strip()) for line in page_text().splitlines()) <= 62


def test_the_page_shows_the_file_that_is_run():
    page = json.loads(PAGE.read_text(encoding="utf-8"))["cells"]
    shown = next(cell for cell in page if "inspect.getsource" in "".join(cell["source"]))
    text = "".join("".join(output["text"]) for output in shown["outputs"])

    def squeezed(code):
        return [line for line in renamed(code).splitlines() if line.strip()]

    assert squeezed(text) == squeezed(page_text())


@pytest.mark.parametrize("base", [Naming, Start, Target, Prompting, LabelRule, Filter, TrainingUse, Finish])
def test_the_page_names_what_each_choice_must_offer(base):
    "Behind the name of the base class, up to the next choice, stands every method that has to be written."
    tables = next(cell for cell in cells(PAGE) if "## What each choice must offer" in cell)
    lines = tables[tables.index(f"`{base.__name__}`") :].splitlines()
    rest = [line for line in lines[1:2] if line.startswith("| | |")]
    assert all(f"`{name}`" in " ".join([lines[0], *rest]) for name in base.__abstractmethods__)


def test_the_command_line_paints_with_it(made):
    lines = (made / "plan.jsonl").read_text(encoding="utf-8").splitlines()
    header, *rows = [json.loads(line) for line in lines]
    assert header["method"] == "my-transfer"
    assert header["settings"]["finish"]
    assert len(rows) == 10
    finished = LabeledImages.open(made / "train")
    assert len(finished) == 10
    assert set(finished.counts().values()) == {1.0}
    sources = [info["sources"][0][0] for info in finished.info]
    classes = [name.partition("/")[0] for name in sources]  # an id begins with the class of its photograph
    assert [finished.class_names[index] for index in finished.targets] == classes
    assert sorted(sources) == sorted(row["inputs"][0][0] for row in rows)


def test_to_go_on_needs_the_file(made, own_file, monkeypatch, capsys):
    before = content(made)
    monkeypatch.delenv("GENAUG_METHODS", raising=False)
    assert run(arguments(made)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "There is no method 'my-transfer'" in said
    assert "GENAUG_METHODS" in said
    assert content(made) == before


def test_with_the_file_it_goes_on_to_the_same_pictures(made):
    assert content(made / "train") == content(made.with_name("out-first") / "train")


def test_what_is_stored_says_when_the_file_is_missing(made, tmp_path, monkeypatch, capsys):
    "The report of a set needs no method; that of a comparison reads its arms."
    monkeypatch.delenv("GENAUG_METHODS", raising=False)
    shutil.copytree(made, tmp_path / "set")
    assert run(["report", str(tmp_path / "set")]) == 0
    assert (tmp_path / "set" / "report.html").is_file()
    question = {"methods": ["original", "my-transfer"], "splits": [0], "repeats": [0], "data": "digits"}
    record = {"genaug_comparison": 1, "source": "digits", "question": question, "shared": {}}
    (tmp_path / "comparison.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(GenaugError, match="has an arm that cannot be read here: There is no method"):
        read_comparison(tmp_path)


# ---------------------------------------------------------------- files that cannot be


HEAD = """
from genaug.choices import Finish
from genaug.contracts import declare_method
from genaug.recipe import Recipe
"""
BLUR = """
class Blur(Finish):
    width: float = 2.0
    def finish(self, images, rows, real): return images
"""


def declaring(name, built=None, more="", parts=""):
    "A file that declares a recipe."
    function = f"def mine(): return Recipe({built or name!r}{parts})\n"
    return f"{HEAD}@declare_method({name!r}, 'x'{more})\n{function}"


WRONG = {
    "syntax": ("x = (", "SyntaxError"),
    "half": ("from genaug.core import no_such_name", "ImportError"),
    "exit": ("raise SystemExit(3)", "SystemExit"),
    "taken": (declaring("diff-ii"), "Two methods are called 'diff-ii'"),
    "twice": (
        declaring("twin") + declaring("twin").replace("mine", "other"),
        "Two methods are called 'twin'",
    ),
    "no method": (
        HEAD + "@declare_method('mine', 'x')\nclass Mine:\n    name = 'mine'",
        "a method is an Augmenter, a Mixer or a Balancer, not a Mine",
    ),
    "other name": (declaring("mine", "yours"), "'mine' is declared and 'yours' is built"),
    "odd name": (declaring("My+Method"), "use lower-case letters, digits and hyphens"),
    "family": (declaring("mine", more=", family='gan'"), "family='gan'"),
    "embedded": (declaring("mine", more=", embedded={'guidance': 4.0}"), "'mine' has no field 'guidance'"),
    "abstract": (declaring("mine", parts=", finish=Finish()"), "abstract class Finish"),
    "undecorated": (
        HEAD + BLUR + declaring("mine", parts=", finish=Blur()").replace(HEAD, ""),
        "write @dataclass(frozen=True) above the class Blur",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_cannot_be_is_refused_in_one_sentence(name, tmp_path, monkeypatch, capsys):
    text, part = WRONG[name]
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("GENAUG_METHODS", str(tmp_path / "mine.py"))
    for _ in range(2):  # the second time half of the module must not pass for a whole one
        assert run(arguments(tmp_path / "out", "real-guidance")) == 2
        said = capsys.readouterr().err
        assert part in said
        assert said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["mine.py"]


@pytest.mark.parametrize("value", ["no_such_file.py", "no_such_module", "~nobody/file.py", "folder.py"])
def test_what_is_no_module_is_refused(value, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("folder.py").mkdir()
    monkeypatch.setenv("GENAUG_METHODS", value)
    assert run(arguments(tmp_path / "out", "real-guidance")) == 2
    assert "name an importable module or a Python file in GENAUG_METHODS" in capsys.readouterr().err
    assert not Path("out").exists()


def test_two_files_of_one_name_are_two_files(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(f"which = '{name}'", encoding="utf-8")
    assert [own_module(str(tmp_path / name / "mine.py")).which for name in ("one", "two")] == ["one", "two"]


def test_a_method_of_the_script_is_known_at_once(monkeypatch):
    def scripted():
        return Recipe("scripted")

    scripted.__module__ = "__main__"
    declared = declare_method("scripted", "of this script")(scripted)
    monkeypatch.setattr(sys.modules["__main__"], "scripted", declared, raising=False)
    assert "scripted" in method_names()
    assert make_arm("scripted").augmenter.name == "scripted"


# ---------------------------------------------------------------- the guide's method


def test_the_method_of_the_guide_paints(tmp_path):
    cells = json.loads((ROOT / "nbs" / "guide.ipynb").read_text(encoding="utf-8"))["cells"]
    guide = "\n".join("".join(cell["source"]) for cell in cells)
    block = re.search(r"```python\n(from dataclasses.*?)```", guide, flags=re.DOTALL)[1]
    (tmp_path / "mirrored.py").write_text(block, encoding="utf-8")
    real, backbone = toy_photographs(), toy_backbone()
    method = own_module(str(tmp_path / "mirrored.py")).my_method(backbone=backbone).fit(real)
    rows = method.plan(real, Budget(1), 0)
    plain = method.having(finish=AsPainted()).fit(real).paint(rows, real)
    assert all(np.array_equal(image[:, ::-1], other) for image, other in zip(method.paint(rows, real), plain))


# ---------------------------------------------------------------- own parts


@dataclass(frozen=True)
class Noisy(Finish):
    "Adds a number to all pixels, drawn when the row is planned."

    limit: Annotated[int, Bound(0, 50)] = 20

    def plan_finish(self, rng, anchor):
        return {"shift": int(rng.integers(self.limit + 1))}

    def finish(self, images, rows, real):
        return [(image // 2 + row.settings["shift"]).astype(np.uint8) for image, row in zip(images, rows)]


@dataclass(frozen=True)
class FirstHalf(TrainingUse):
    "The first half of the slots shows synthetic images, the other photographs."

    half: Annotated[float, Bound(0, 1)] = 0.5
    word: ClassVar[str] = "first_half"

    def shown(self, schedule, epoch, order, coins):
        border, usable = int(self.half * len(order)), schedule.usable
        return [
            [
                self.painted(schedule, usable[slot % len(usable)])
                if slot < border
                else self.photograph(schedule, position)
            ]
            for slot, position in enumerate(order)
        ]


@dataclass(frozen=True)
class WithItself(PartnerRule):
    "Every row is mixed with what it shows."

    def partners(self, schedule, epoch, rows):
        return [row.shown for row in rows]


@dataclass(kw_only=True)
class Average(Mixer):
    "The mean of both."

    name: str = "average"
    partner_rule = WithItself()

    def mix(self, images, labels, partner_images, partner_labels, seeds):
        return (images + partner_images) / 2, (labels + partner_labels) / 2


def own_recipe(**changes):
    own = Recipe(
        "own",
        start=FromPhotograph((0.7,)),
        finish=Noisy(),
        use=FirstHalf(half=0.25),
        backbone=toy_backbone(),
        num_inference_steps=5,
    )
    return own.having(**changes)


def test_an_own_finish_plans_and_paints():
    real = toy_photographs()
    method = own_recipe().fit(real)
    rows = method.plan(real, Budget(2), 0)
    assert len({row.settings["shift"] for row in rows}) > 1
    assert method.plan(real, Budget(3), 0)[: len(rows)] == rows
    images, alone = method.paint(rows, real), [method.paint([row], real)[0] for row in rows]
    assert max(int(np.abs(image.astype(int) - other).max()) for image, other in zip(images, alone)) <= 2
    other = own_recipe(**{"finish.limit": 19}).fit(real).plan(real, Budget(2), 0)
    assert not {row.id for row in other} & {row.id for row in rows}
    with pytest.raises(GenaugError, match="'Noisy' cannot have limit=51"):
        own_recipe(**{"finish.limit": 51})


def test_an_own_use_and_an_own_partner_rule_are_scheduled():
    real, method = toy_photographs(), own_recipe()
    rows = method.fit(real).plan(real, Budget(1), 0)
    labels = np.array([row.label for row in rows], np.float32)
    synthetic = LabeledImages(method.paint(rows, real), labels, real.class_names, [row.id for row in rows])
    showing = Showing(use=method.use, mixer=Average(probability=1.0))
    plan = TrainingSchedule(real, synthetic, 0, showing).plan(0)
    assert [row.shown.partition(":")[0] for row in plan.rows] == ["synthetic"] + ["real"] * 5
    assert all(row.partner == row.shown and row.mix == "average" for row in plan.rows)


def test_an_arm_takes_the_use_of_an_own_method():
    own = FirstHalf(half=0.25)
    assert chosen_use(own, {}, None) == own
    assert chosen_use(own, {"use": "first_half", "replace": 0.3}, None) == FirstHalf(half=0.25, replace=0.3)
    assert chosen_use(own, {"use": "swap_class"}, None) == SwapClass()
    assert own.record()["kind"] == "first_half"
    with pytest.raises(GenaugError, match="use=second_half"):
        chosen_use(own, {"use": "second_half"}, None)


# ---------------------------------------------------------------- what strangers forget


LATER = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Annotated
from genaug.choices import AsPainted
from genaug.settings import Bound

@dataclass(frozen=True)
class Later(AsPainted):
    amount: Annotated[float, Bound(0, 1)] = 1.0
"""


def test_settings_under_postponed_annotations_are_checked(tmp_path):
    (tmp_path / "later.py").write_text(LATER, encoding="utf-8")
    later = own_module(str(tmp_path / "later.py")).Later
    assert Recipe("x", finish=later(0.5)).having(**{"finish.amount": 1}).finish == later(1.0)
    with pytest.raises(GenaugError, match="it must be a finite number at least 0 and at most 1"):
        later(2.0)


def test_a_class_without_its_decorator_is_refused():
    class Forgotten(AsPainted):
        width: float = 2.0

    class Method(Augmenter):
        width: float = 2.0

        def plan(self, real, budget, seed):
            return []

        def paint(self, rows, real):
            return []

    class Plain(AsPainted):
        "No settings of its own: nothing was forgotten."

        identity = Identity("Plain")
        colours: ClassVar[int] = 3

    with pytest.raises(GenaugError, match=r"write @dataclass\(frozen=True\) above the class Forgotten"):
        Recipe("x", finish=Forgotten())
    with pytest.raises(TypeError, match="above the class Method"):
        declare_method("augmenter", "x")(Method)
    assert isinstance(Recipe("x", finish=Plain()).finish, Part)
    assert check_settings(Plain()) is None


# ---------------------------------------------------------------- the example itself


def pictures(*shapes):
    return noise_pictures(shapes)


class Row:
    settings = {"anchor": "a"}


def finish(photograph, painted, amount=1.0):
    real = LabeledImages([photograph], [0], ["x"], ["a"])
    return LabTransfer(amount).finish([painted], [Row], real)[0]


@pytest.mark.parametrize(
    "photograph, painted",
    [
        ((8, 8, 3), (8, 8, 3)),
        ((9, 13, 3), (8, 8, 3)),
        ((8, 8), (8, 8, 3)),
        ((8, 8, 1), (8, 8, 1)),
        ((8, 8, 3), (8, 8, 1)),
    ],
)
def test_the_finished_picture_has_the_form_of_the_painted_one(photograph, painted):
    photograph, painted = pictures(photograph, painted)
    first = finish(photograph, painted)
    assert first.shape == painted.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, finish(photograph, painted))


def test_even_pictures_and_grey_ones_stay_what_they_are():
    grey, colourful = np.full((8, 8, 3), 90, np.uint8), pictures((8, 8, 3))[0]
    assert len(np.unique(finish(grey, colourful).reshape(-1, 3), axis=0)) == 1  # even stays even
    assert np.ptp(finish(colourful, grey).astype(int).mean(2)) <= 2  # and becomes so under an even edit
    noise = np.repeat(pictures((8, 8, 1))[0], 3, 2)
    assert rgb2lab(finish(noise, noise[::-1]) / 255)[..., 1:].std((0, 1)).max() < 0.5  # grey stays grey
    assert np.array_equal(finish(colourful, grey, amount=0.0), colourful)


def test_lab_statistics_are_moved_exactly():
    photo, edit = (rgb2lab(picture / 255) for picture in pictures((8, 8, 3), (6, 7, 3)))
    moved = move_statistics(photo, edit)
    assert np.allclose(moved.mean((0, 1)), edit.mean((0, 1)), atol=1e-9)
    assert np.allclose(moved.std((0, 1)), edit.std((0, 1)), atol=1e-9)


def test_the_example_is_registered_with_its_embedded_settings():
    assert find_method("colour-transfer").embedded == {"guidance_scale": 4.0}
    method = make_arm("colour-transfer@strengths=0.5:0.9;finish.amount=0.5").augmenter
    assert (method.start.strengths, method.finish) == ((0.5, 0.9), LabTransfer(0.5))
    assert method.guidance_scale == 4.0
    assert colour_transfer().settings()["strengths"] == (0.7,)
