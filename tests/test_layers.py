"""Imports point only to pages that come before, and no method imports another method."""

import ast
from pathlib import Path

import pytest
from layers import absolute, numbers, violations
from notebook_habits import reading_number

ROOT = Path(__file__).resolve().parent.parent


def test_imports_point_to_pages_before():
    item = violations(ROOT / "genaug", ROOT / "nbs")
    assert not item, "\n".join(item)


def test_every_notebook_has_its_own_number_and_module():
    places = [reading_number(path) for path in (ROOT / "nbs").glob("*/[0-9]*.ipynb")]
    assert len(set(places)) == len(places), "two notebooks of a folder share a number"
    for module in numbers(ROOT / "nbs"):
        assert (ROOT / Path(*module.split("."))).with_suffix(".py").is_file(), f"{module} was not exported"


@pytest.fixture
def project(tmp_path):
    "A package of five modules that keeps the rules; `write` replaces one module's code."
    modules = {
        "ground/00_core": "import numpy as np",
        "diffusion/00_diffusion": "from genaug.core import content_hash",
        "methods/01_recipe": "from .diffusion import Backbone",
        "methods/05_methods.diff_mix": "from genaug import recipe",
        "methods/06_methods.diff_ii": "from ..recipe import Recipe",
        "comparing/03_registry": "import genaug.methods.diff_ii",
    }
    for stem, code in modules.items():
        notebook = tmp_path / "nbs" / f"{stem}.ipynb"
        notebook.parent.mkdir(parents=True, exist_ok=True)
        notebook.write_text("{}")
        module = notebook.stem.partition("_")[2]
        path = (tmp_path / "genaug" / Path(*module.split("."))).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    (tmp_path / "genaug" / "__init__.py").write_text('__version__ = "0"')
    (tmp_path / "genaug" / "methods" / "__init__.py").write_text("")

    def write(path, code):
        (tmp_path / "genaug" / path).write_text(code)
        return violations(tmp_path / "genaug", tmp_path / "nbs")

    return write


def test_a_clean_project_passes(project):
    assert project("core.py", "import math") == []


@pytest.mark.parametrize(
    "path, code",
    [
        ("core.py", "from genaug.diffusion import Backbone"),
        ("core.py", "from .diffusion import Backbone"),
        ("core.py", "from . import diffusion"),
        ("core.py", "import genaug.diffusion"),
        ("core.py", "import genaug.diffusion as lower"),
        ("core.py", "from genaug import diffusion"),
        ("core.py", "def inside():\n    from .diffusion import Backbone"),
        ("core.py", "if True:\n    from .methods.diff_ii import DiffII"),
        ("core.py", "import importlib\nimportlib.import_module('genaug.diffusion')"),
        ("diffusion.py", "from genaug.recipe import Recipe"),
        ("recipe.py", "from .methods.diff_ii import DiffII"),
        ("methods/diff_mix.py", "from ..registry import arms"),
    ],
)
def test_a_planted_upward_import_is_seen(project, path, code):
    assert any("which comes later" in sentence for sentence in project(path, code))


@pytest.mark.parametrize(
    "code",
    [
        "from .diff_mix import DiffMix",
        "from . import diff_mix",
        "from ..methods.diff_mix import DiffMix",
        "from genaug.methods import diff_mix",
        "import genaug.methods.diff_mix",
    ],
)
def test_a_planted_import_between_methods_is_seen(project, code):
    assert any("imports the method" in sentence for sentence in project("methods/diff_ii.py", code))


def test_the_registry_may_import_methods(project):
    assert project("registry.py", "from .methods.diff_ii import DiffII\nfrom .methods import diff_mix") == []


def test_a_module_without_notebook_is_seen(project):
    assert project("helpers.py", "") == ["genaug.helpers has no notebook"]


def test_an_import_in_an_init_is_seen(project):
    assert project("__init__.py", "from .diffusion import Backbone") == [
        "genaug/__init__.py imports genaug.diffusion"
    ]


@pytest.mark.parametrize(
    "statement, module, is_package, name",
    [
        ("from . import core", "genaug.data", False, "genaug"),
        ("from .core import x", "genaug.data", False, "genaug.core"),
        ("from ..core import x", "genaug.methods.diff_ii", False, "genaug.core"),
        ("from .diff_mix import x", "genaug.methods.diff_ii", False, "genaug.methods.diff_mix"),
        ("from .diff_mix import x", "genaug.methods", True, "genaug.methods.diff_mix"),
        ("from genaug.core import x", "genaug.methods.diff_ii", False, "genaug.core"),
    ],
)
def test_relative_imports_are_resolved(statement, module, is_package, name):
    assert absolute(ast.parse(statement).body[0], module, is_package) == name
