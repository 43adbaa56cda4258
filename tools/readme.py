"""Make README.md from nbs/index.ipynb.

    python tools/readme.py             # writes README.md and its figures (nbs/images/readme-N.png)
    python tools/readme.py --check     # status 1 if they are not what would be written

Links of the notebook are relative to nbs/, those of the README to the top level. Code that only draws (`#| echo: false`
or `#| hide_input`) is left out, its result stays.
"""
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


def generate(root=ROOT):
    "The README's text, and its figures as file name -> bytes."
    from nbconvert import MarkdownExporter
    from traitlets.config import Config
    notebook = nbformat.read(root / "nbs" / "index.ipynb", 4)
    for cell in notebook.cells:
        cell.metadata["tags"] = []
        if cell.cell_type == "code":
            drop = re.search(r"^#\|\s*(echo:\s*false|hide_input)", cell.source, flags=re.MULTILINE)
            if re.search(r"^#\|\s*hide\s*$", cell.source, flags=re.MULTILINE):
                cell.metadata["tags"] = ["remove_cell"]
            elif drop:
                cell.metadata["tags"] = ["remove_input"]
            cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.MULTILINE).strip("\n")
    remove = {"enabled": True, "remove_cell_tags": ["remove_cell"], "remove_input_tags": ["remove_input"]}
    body, resources = MarkdownExporter(config=Config({"TagRemovePreprocessor": remove})).from_notebook_node(notebook)
    figures = {}
    for number, (name, content) in enumerate(sorted((resources.get("outputs") or {}).items()), start=1):
        figures[f"readme-{number}{Path(name).suffix}"] = content
        body = body.replace(f"({name})", f"(images/readme-{number}{Path(name).suffix})")
    body = re.sub(r"[ \t]+$", "", relink(body), flags=re.MULTILINE)
    return NOTE + re.sub(r"\n{3,}", "\n\n", body).strip() + "\n", figures


def differences(root=ROOT):
    "Names of the files that differ from what would be written."
    text, figures = generate(root)
    wanted = {root / "README.md": text.encode(), **{root / "nbs" / "images" / name: content for name, content in figures.items()}}
    return [path.name for path, content in wanted.items() if not path.is_file() or path.read_bytes() != content]


def main(arguments):
    if "--check" in arguments:
        found = differences()
        print("README.md is up to date" if not found else f"not up to date, run python tools/readme.py: {', '.join(found)}")
        return 1 if found else 0
    text, figures = generate()
    for name, content in figures.items():
        (ROOT / "nbs" / "images").mkdir(exist_ok=True)
        (ROOT / "nbs" / "images" / name).write_bytes(content)
    (ROOT / "README.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
