"""Make README.md from nbs/index.ipynb.

    python tools/readme.py             # writes README.md, its figures in nbs/images/, the index's tables
    python tools/readme.py --check     # status 1 if they are not what would be written

The tables of the index (cells that end in `Markdown(...)`) are made anew from the registry, the notebooks and
the rows of results; its figures are taken as they are stored.

Links of the notebook are relative to nbs/, those of the README to the top level. Code that only draws (`#|
echo: false` or `#| hide_input`) is left out, its result stays.
"""

import ast
import contextlib
import json
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- Made from nbs/index.ipynb by tools/readme.py: edit the notebook, not this file. -->\n\n"


def relink(text, folder="nbs"):
    "Markdown and HTML links, relative to `folder`, made relative to the top level."

    def target(path):
        if re.match(r"[a-z][a-z0-9+.-]*:|#|/", path):
            return path
        parts = [folder]
        for part in path.split("/"):
            if part == "..":
                parts.pop()
            elif part != ".":
                parts.append(part)
        return "/".join(parts)

    text = re.sub(r"(\]\()([^)\s]+)(\))", lambda match: match[1] + target(match[2]) + match[3], text)
    return re.sub(r'((?:src|href)=")([^"]+)(")', lambda match: match[1] + target(match[2]) + match[3], text)


def shown(source, space):
    "What the last line of a code cell gives when the cell is executed with the names of `space`."
    *statements, last = ast.parse(source).body
    exec(compile(ast.Module(statements, []), "index.ipynb", "exec"), space)
    return eval(compile(ast.Expression(last.value), "index.ipynb", "eval"), space)


def with_tables(root=ROOT):
    "The index as JSON, its tables made anew: cells of imports and of tables are executed, no other."
    notebook, space = json.loads((root / "nbs" / "index.ipynb").read_text(encoding="utf-8")), {}
    with contextlib.chdir(root / "nbs"):
        for cell in notebook["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] != "code":
                continue
            if all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.parse(source).body):
                exec(compile(source, "index.ipynb", "exec"), space)
            elif source.splitlines()[-1].startswith("Markdown("):
                data = {
                    "text/markdown": shown(source, space).data.splitlines(keepends=True),
                    "text/plain": ["<IPython.core.display.Markdown object>"],
                }
                output = {"execution_count": None, "metadata": {}, "output_type": "execute_result"}
                cell["outputs"] = [{"data": data, **output}]
    return notebook


def as_text(notebook):
    "A notebook as nbdev writes it."
    return json.dumps(notebook, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def generate(root=ROOT, index=None):
    "The README's text, and its figures as file name -> bytes, from `index` or from what `with_tables` makes."
    from nbconvert import MarkdownExporter
    from traitlets.config import Config

    notebook = nbformat.reads(as_text(index or with_tables(root)), 4)
    alternatives = []
    for cell in notebook.cells:
        cell.metadata["tags"] = []
        if cell.cell_type == "code":
            alternatives += re.findall(r'^#\|\s*fig-alt:\s*"?(.*?)"?\s*$', cell.source, flags=re.MULTILINE)
            drop = re.search(r"^#\|\s*(echo:\s*false|hide_input)", cell.source, flags=re.MULTILINE)
            if re.search(r"^#\|\s*hide\s*$", cell.source, flags=re.MULTILINE):
                cell.metadata["tags"] = ["remove_cell"]
            elif drop:
                cell.metadata["tags"] = ["remove_input"]
            cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.MULTILINE).strip("\n")
    remove = {"enabled": True, "remove_cell_tags": ["remove_cell"], "remove_input_tags": ["remove_input"]}
    body, resources = MarkdownExporter(config=Config({"TagRemovePreprocessor": remove})).from_notebook_node(
        notebook
    )
    texts = iter(alternatives)  # in the order of the figures
    body = re.sub(r"!\[(?:png|jpeg|svg)\]\(", lambda match: f"![{next(texts, 'figure')}](", body)
    figures = {}
    for number, (name, content) in enumerate(sorted((resources.get("outputs") or {}).items()), start=1):
        figures[f"readme-{number}{Path(name).suffix}"] = content
        body = body.replace(f"({name})", f"(images/readme-{number}{Path(name).suffix})")
    body = re.sub(r"[ \t]+$", "", relink(body), flags=re.MULTILINE)
    return NOTE + re.sub(r"\n{3,}", "\n\n", body).strip() + "\n", figures


def differences(root=ROOT):
    "Names of the files that differ from what would be written."
    made = with_tables(root)
    text, figures = generate(root, made)
    images = {root / "nbs" / "images" / name: content for name, content in figures.items()}
    wanted = {root / "README.md": text.encode(), **images}
    actual = [
        path.name for path, content in wanted.items() if not path.is_file() or path.read_bytes() != content
    ]
    stored = json.loads((root / "nbs" / "index.ipynb").read_text(encoding="utf-8"))
    return actual + ["index.ipynb"] * (stored != made)


def main(arguments):
    if "--check" in arguments:
        actual = differences()
        print(
            "README.md is up to date"
            if not actual
            else f"not up to date, run python tools/readme.py: {', '.join(actual)}"
        )
        return 1 if actual else 0
    made = with_tables()
    text, figures = generate(ROOT, made)
    for name, content in figures.items():
        (ROOT / "nbs" / "images").mkdir(exist_ok=True)
        (ROOT / "nbs" / "images" / name).write_bytes(content)
    (ROOT / "README.md").write_text(text, encoding="utf-8")
    (ROOT / "nbs" / "index.ipynb").write_text(as_text(made), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
