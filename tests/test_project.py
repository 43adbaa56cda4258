"""settings.ini is the single place of configuration, and what surrounds it agrees with it."""

import ast
import functools
import os
import re
import sys
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("dev", "tables", "fid", "data", "track")


distributions = functools.cache(packages_distributions)


def settings():
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return config["DEFAULT"]


def required(key):
    "Distribution name -> Requirement, from one line of settings.ini."
    actual = [Requirement(word) for word in settings().get(key, "").split()]
    return {canonicalize_name(requirement.name): requirement for requirement in actual}


def constraints():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line) for line in lines), (
        "only name==version resolves everywhere"
    )
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


@pytest.mark.parametrize("key", ["requirements", "dev_requirements", "tables_requirements"])
def test_the_tested_versions_satisfy_the_requirements(key):
    pinned = constraints()
    assert "genaug" not in pinned
    for name, requirement in required(key).items():
        assert name in pinned, f"{name} has no tested version in constraints.txt"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} against {pinned[name]}"


def imports(path, only_top_level):
    "Top-level packages that a module imports, either everywhere or only when it is itself imported."
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if only_top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "genaug").rglob("*.py")),
    ids=lambda path: path.relative_to(ROOT / "genaug").as_posix(),
)
def test_whatever_is_imported_is_required(path):
    "By the package itself, or, inside functions only, by one of the extras for users."
    known = distributions()
    always = set(required("requirements"))
    optional = always.union(*(required(f"{extra}_requirements") for extra in EXTRAS if extra != "dev"))
    for only_top_level, allowed in ((True, always), (False, optional)):
        for name in set(imports(path, only_top_level)) - set(sys.stdlib_module_names) - {"genaug"}:
            owners = {canonicalize_name(owner) for owner in known.get(name, [name])}
            assert owners & allowed, f"{name} ({', '.join(owners)}) is not required by settings.ini"


def test_versions_agree():
    import genaug

    assert genaug.__version__ == settings()["version"]


def test_continuous_integration_is_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [
        line
        for line in script.read_text().splitlines()
        if line.strip() and not line.startswith(("#", "set ", "cd ", "export "))
    ]
    assert commands == ["exec make test < /dev/null"]


def test_the_readme_shows_the_command_that_the_demo_runs():
    (command,) = re.findall(r"genaug (compare .*) --out demo_out", (ROOT / "Makefile").read_text())
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert command in readme
    assert "make demo" in readme
    assert "make test" in readme


def test_no_pyproject_is_made():
    "nbdev would make one that overrules setup.py."
    assert settings()["update_pyproject"] == "False"
    assert not (ROOT / "pyproject.toml").exists()


# the packages that the design names, and what they are imported as; notebooks themselves need the first one
CARD = {
    "nbdev": "nbdev",
    "torch": "torch",
    "diffusers": "diffusers",
    "peft": "peft",
    "grad-cam": "pytorch_grad_cam",
    "seaborn": "seaborn",
    "scikit-learn": "sklearn",
    "torchmetrics": "torchmetrics",
    "papermill": "papermill",
}


@pytest.mark.parametrize("package", CARD)
def test_every_package_of_the_design_is_used(package):
    users = {
        path.relative_to(ROOT).as_posix()
        for folder in ("genaug", "tools", "nbs")
        for path in (ROOT / folder).rglob("*.py" if folder != "nbs" else "*.ipynb")
        if "_proc" not in path.parts
        and re.search(
            rf"(?m)^[\s\"]*(import|from) {CARD[package]}\b|import .*, {CARD[package]}\b", path.read_text()
        )
    }
    own = {user for user in users if user.startswith("genaug/")}
    assert own if package != "nbdev" else users, f"{package} is required and never imported"
