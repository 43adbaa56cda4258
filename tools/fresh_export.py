"""Is the tree what nbdev would make of it? Exports and cleans a copy, and compares.

python tools/fresh_export.py       # status 1 and the names of the differing files if nbdev_export or
nbdev_clean would change anything
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = ("settings.ini", "setup.py", "README.md", "_quarto.yml")


def copy_sources(root, target):
    """Notebooks and configuration, and of the package only genaug/__init__.py, in which nbdev keeps the
    version."""
    for name in CONFIGURATION:
        shutil.copyfile(root / name, target / name)
    ignore = shutil.ignore_patterns("_*.ipynb", ".ipynb_checkpoints", "_runs", "nbdev.yml", "sidebar.yml")
    shutil.copytree(root / "nbs", target / "nbs", symlinks=True, ignore=ignore)
    (target / "genaug").mkdir()
    if (root / "genaug" / "__init__.py").exists():
        shutil.copyfile(root / "genaug" / "__init__.py", target / "genaug" / "__init__.py")


def made_files(root):
    "All exported modules and all notebooks of a tree: relative path -> bytes."
    paths = [*(root / "genaug").rglob("*.py"), *(root / "nbs").rglob("[!_]*.ipynb")]
    skip = {".ipynb_checkpoints", "_runs"}
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in paths if not skip & set(path.parts)
    }


def differences(root=ROOT):
    "Sentences naming every file that a fresh export or a clean would change, add or leave behind."
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder, root.name)
        fresh.mkdir()
        copy_sources(root, fresh)
        environment = {
            name: value for name, value in os.environ.items() if name not in ("IN_TEST", "PYTHONPATH")
        }
        for command in (
            "from nbdev.doclinks import nbdev_export; nbdev_export.__wrapped__()",
            "from nbdev.clean import nbdev_clean; nbdev_clean.__wrapped__()",
        ):
            subprocess.run(
                [sys.executable, "-c", command],
                cwd=fresh,
                env=environment,
                check=True,
                stdin=subprocess.DEVNULL,
            )
        wanted, present = made_files(fresh), made_files(root)
    actual = [f"{name} is not made by any notebook" for name in sorted(present.keys() - wanted.keys())]
    actual += [f"{name} is missing: run nbdev_export" for name in sorted(wanted.keys() - present.keys())]
    actual += [
        f"{name} differs: run {'nbdev_clean' if name.endswith('.ipynb') else 'nbdev_export'}"
        for name in sorted(wanted.keys() & present.keys())
        if wanted[name] != present[name]
    ]
    return actual


if __name__ == "__main__":
    result = differences()
    print("\n".join(result) or "a fresh export and clean change nothing")
    sys.exit(1 if result else 0)
