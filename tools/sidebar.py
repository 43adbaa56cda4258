"""Make the sidebar of the site, in _quarto.yml, from the notebooks that are there.

    python tools/sidebar.py             # writes the lines between the two marks in _quarto.yml
    python tools/sidebar.py --check     # status 1 if they are not what would be written

A library notebook stands in the section of its folder; the folders follow one another as SECTIONS says, and
the pages of a folder by their numbers: that is the line of reading. The order of the table notebooks is
declared in _quarto.yml itself and kept; one that is not named there yet comes last.
"""

import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = (  # folder of nbs/, its name; a page may use only what pages before it make
    ("ground", "Pictures, sets, methods"),
    ("data", "Data"),
    ("diffusion", "Diffusion"),
    ("classic", "Classic augmentation"),
    ("learned", "Learned parts"),
    ("judging", "Judging"),
    ("methods", "Methods"),
    ("comparing", "Comparing"),
    ("commands", "Command line"),
)
BEGIN = "# Made from nbs/ by tools/sidebar.py; only the order of the tables is yours to change."
END = "# End of what is made."


def listed(root=ROOT):
    "The reading order that _quarto.yml states: a list of (section or None, source path)."

    def walk(items, section):
        for item in items or ():
            if isinstance(item, str):
                yield section, item
            elif "contents" in item:
                yield from walk(item["contents"], item["section"])
            else:
                yield section, item["href"]

    site = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))
    return list(walk(site["website"]["sidebar"]["contents"], None))


def reading_order(root=ROOT):
    "The same list, from the notebooks that are there."
    nbs = root / "nbs"
    library = [
        (section, f"{folder}/{path.name}")
        for folder, section in SECTIONS
        for path in sorted((nbs / folder).glob("[0-9]*.ipynb"))
    ]
    present = sorted(f"tables/{path.name}" for path in nbs.glob("tables/[!_.]*.ipynb"))
    declared = [source for _, source in listed(root) if source in present]
    tables = [("Tables", source) for source in dict.fromkeys([*declared, *present])]
    prose = sorted(path.name for path in nbs.glob("[!_.]*.ipynb") if path.name != "index.ipynb")
    return [(None, "index.ipynb"), *((None, name) for name in prose), *library, *tables]


def generate(root=ROOT):
    "The text of _quarto.yml with the part between the marks made anew."
    before, begin, rest = (root / "_quarto.yml").read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"_quarto.yml must hold two marks, in this order: '{BEGIN}' and '{END}'.")
    lines, current = [], None
    for section, source in reading_order(root):
        if section != current:
            lines += [f"- section: {section}", "  contents:"]
            current = section
        lines.append(f"{'    ' if section else ''}- {source}")
    indent = " " * (len(before) - len(before.rstrip(" ")))
    return before + BEGIN + "".join(f"\n{indent}{line}" for line in lines) + f"\n{indent}" + END + after


def is_made(root=ROOT):
    "Whether _quarto.yml is what would be written."
    return (root / "_quarto.yml").read_text(encoding="utf-8") == generate(root)


def main(arguments):
    if "--check" in arguments:
        made = is_made()
        print("the sidebar is up to date" if made else "_quarto.yml: run python tools/sidebar.py")
        return 0 if made else 1
    (ROOT / "_quarto.yml").write_text(generate(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
