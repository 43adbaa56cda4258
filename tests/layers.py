"""Which notebook an exported module comes from, and what it may import.

A module may import only modules whose notebooks come before its own in the line of reading, and no method
(`genaug.methods`) another method. Read from the exported code with ast, so that nothing is executed and an
import inside a function counts too.
"""

import ast
import re
from pathlib import Path

from notebook_habits import reading_number


def is_method(module):
    "Is it one of the methods, none of which imports another?"
    return module.startswith("genaug.methods.")


def numbers(nbs):
    "Module name (`genaug.methods.diff_ii`) -> the place of its notebook in the line of reading."
    actual = {}
    for path in Path(nbs).glob("*/*.ipynb"):
        match = re.fullmatch(r"(\d+)_([\w.]+)", path.stem)
        if match:
            actual[f"genaug.{match[2]}"] = reading_number(path)
    return actual


def absolute(node, module, is_package):
    "The module named by a `from ... import`, relative dots resolved against the importing module."
    if not node.level:
        return node.module
    parts = module.split(".") if is_package else module.split(".")[:-1]
    base = parts[: len(parts) - (node.level - 1)]
    return ".".join(base + ([node.module] if node.module else []))


def imported(source, module, known, is_package=False):
    "Modules among `known` that a module's source imports, anywhere in it."
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module, is_package)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names.add(str(node.args[0].value))
    return {name for name in names if name in known}


def violations(package, nbs):
    "All imports in the package `package` that point upwards or sideways, each a sentence."
    package, known = Path(package), numbers(nbs)
    actual = []
    for path in sorted(package.rglob("*.py")):
        if path.name == "_modidx.py":
            continue
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        is_package = path.name == "__init__.py"
        module = module.removesuffix(".__init__")
        names = imported(path.read_text(encoding="utf-8"), module, known, is_package)
        if is_package:
            actual += [f"{module}/__init__.py imports {name}" for name in sorted(names)]
        elif module not in known:
            actual.append(f"{module} has no notebook")
        else:
            for name in sorted(names - {module}):
                if known[name] >= known[module]:
                    actual.append(f"{module} imports {name}, which comes later in the line of reading")
                elif is_method(name) and is_method(module):
                    actual.append(f"{module} imports the method {name}")
    return actual
