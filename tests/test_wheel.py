"""A wheel, and one built from the sdist, hold everything that runs: modules, weights, table notebooks, result
rows, the command."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLANTED = {
    "nbs/tables/planted.ipynb": '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}\n',
    "nbs/tables/presets/planted.json": '{"table": "planted", "shared": {}, "cells": []}\n',
    "nbs/results/planted.csv": "table,value\nplanted,1.0\n",
    "nbs/results/paper/planted.csv": "table,value\nprinted,2.0\n",
}


def run(*command, cwd, **environment):
    "Runs a command without this checkout on the path; its output is the message if it fails."
    remaining = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**remaining, **environment},
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def build_wheel(source, out):
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
        "--wheel-dir",
        str(out),
        str(source),
        cwd=out,
    )
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    "What a checkout holds, with a table notebook and result rows of known content added."
    root = tmp_path_factory.mktemp("wheel") / "genaug-tree"
    ignore = shutil.ignore_patterns("__pycache__", "_runs", ".ipynb_checkpoints", "[0-9]*.ipynb")
    for name in ("genaug", "nbs"):
        shutil.copytree(ROOT / name, root / name, ignore=ignore, symlinks=True)
    for name in (
        "settings.ini",
        "setup.py",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
        "constraints.txt",
        "_quarto.yml",
    ):
        shutil.copyfile(ROOT / name, root / name)
    for name, text in PLANTED.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(scope="module")
def wheel(tree):
    out = tree.parent / "dist"
    out.mkdir()
    return build_wheel(tree, out)


def contents(wheel):
    "Name -> bytes of everything in the wheel."
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def expected(tree):
    "Name in the wheel -> bytes: the package, and the copies of tables and results."
    files = {
        path.relative_to(tree).as_posix(): path for path in (tree / "genaug").rglob("*") if path.is_file()
    }
    for name, pattern in (("tables", "*.ipynb"), ("tables", "presets/*.json"), ("results", "**/*.csv")):
        for path in (tree / "nbs" / name).glob(pattern):
            files[f"genaug/assets/{name}/{path.relative_to(tree / 'nbs' / name).as_posix()}"] = path
    return {name: path.read_bytes() for name, path in files.items()}


def test_the_wheel_holds_the_package_and_equal_copies(tree, wheel):
    inside, wanted = contents(wheel), expected(tree)
    inside = {name: content for name, content in inside.items() if ".dist-info/" not in name}
    assert inside.keys() == wanted.keys()
    assert [name for name in wanted if inside[name] != wanted[name]] == []
    for name in PLANTED:
        assert f"genaug/assets/{name.removeprefix('nbs/')}" in inside


def test_the_wheel_holds_the_weights(wheel):
    names = contents(wheel)
    for folder in ("tiny-1", "letters-1", "imagenet-1"):
        assert any(
            name.startswith(f"genaug/assets/{folder}/") and name.endswith(".safetensors") for name in names
        ), folder
    assert {"genaug/assets/tiny-1/model_index.json", "genaug/assets/imagenet-1/NOTICE"} <= set(names)
    assert wheel.stat().st_size <= 40e6


def test_the_wheel_names_the_command_and_the_licence(wheel):
    inside = contents(wheel)
    (points,) = [content.decode() for name, content in inside.items() if name.endswith("entry_points.txt")]
    assert "genaug = genaug.cli:main" in points.replace("genaug=genaug", "genaug = genaug")
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    (metadata,) = [content.decode() for name, content in inside.items() if name.endswith("METADATA")]
    required = [
        line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    assert any("diffusers" in line for line in required)
    assert not any(
        word in line
        for line in required
        for word in ("nbdev", "fastcore", "papermill", "jupyter", "datasets")
    )


def test_a_wheel_from_the_sdist_is_the_same(tree, wheel, tmp_path):
    run(
        sys.executable,
        "-m",
        "build",
        "--sdist",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(tree),
        cwd=tmp_path,
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "sdist", filter="data")
    (unpacked,) = (tmp_path / "sdist").iterdir()
    (tmp_path / "second").mkdir()
    again = build_wheel(unpacked, tmp_path / "second")
    assert {name: content for name, content in contents(again).items() if not name.endswith("RECORD")} == {
        name: content for name, content in contents(wheel).items() if not name.endswith("RECORD")
    }


def test_the_command_line_starts_from_the_wheel_alone(wheel, tmp_path):
    """Installed into a folder of its own, in an empty working directory; whatever is imported of genaug comes
    from there."""
    target, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--disable-pip-version-check",
        "--target",
        str(target),
        str(wheel),
        cwd=empty,
    )
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from genaug.cli import main; sys.argv[1:] = "
        "['--help']\n"
        "import genaug; assert genaug.__file__.startswith(sys.path[0]), genaug.__file__\n"
        "assert not {'nbdev', 'fastcore'} & set(sys.modules)\n"
        "main()"
    )
    shown = run(sys.executable, "-I", "-c", code, str(target), cwd=empty)
    for command in ("check", "augment", "compare", "report"):
        assert command in shown
    assert list(empty.iterdir()) == []
