"""Render every notebook as an HTML page without Quarto, and check that all links and anchors lead somewhere.

    python tools/pages.py [--out _docs]      # writes _proc/ (nbdev's processed notebooks) and the pages;
    status 1 if a link is broken

Where Quarto is installed `make docs` uses it instead; these pages are what `make test` checks on every
machine.
"""

import argparse
import base64
import html
import json
import re
import shutil
import sys
import time
import warnings
from html.parser import HTMLParser
from pathlib import Path
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

import nbformat
import sidebar
import yaml

ROOT = Path(__file__).resolve().parent.parent
SHELL = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title} - genaug</title>
<script defer src="https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-mml-chtml.js"></script>
<style>
body {{ display: grid; grid-template-columns: 15rem minmax(0, 52rem); gap: 2rem; margin: 1rem 2rem;
  font: 16px/1.5 system-ui, sans-serif; color: #222 }}
nav {{ font-size: 14px }} nav ul {{ list-style: none; padding-left: .6rem }} pre, code {{ font-size: 13.5px }}
pre {{ background: #f6f7f8; padding: .6rem; overflow-x: auto }}
.jp-OutputArea pre, .output_area pre {{ background: none; border-left: 3px solid #ddd }}
table {{ border-collapse: collapse }} td, th {{ border-bottom: 1px solid #ddd; padding: .2rem .6rem;
  text-align: left }}
img, svg {{ max-width: 100%; height: auto }}
.celltag_fold .input {{ max-height: 1.9rem; overflow: hidden; opacity: .55 }}
.celltag_fold .input:hover {{ max-height: none; opacity: 1 }}
@media (max-width: 60rem) {{ body {{ display: block; margin: 1rem }} nav {{ display: none }} }}
.prompt, .jp-Collapser {{ display: none }}
</style></head><body>
<nav>{navigation}</nav>
<main><h1>{title}</h1><p><em>{description}</em></p>
{body}
</main></body></html>
"""


def slug(heading):
    "A heading's anchor as Quarto makes it: lower case, blanks as hyphens, punctuation dropped."
    text = re.sub(r"<[^>]+>|¶", "", html.unescape(heading)).strip().lower()
    text = re.sub(r"[^\w\s.-]", "", text)
    return re.sub(r"^[^a-z]+", "", re.sub(r"\s+", "-", text)) or "section"


def process(root):
    """nbdev's processed notebooks (show_doc added, hidden cells dropped) in a fresh _proc/; returns it and
    what failed."""
    import nbdev.serve

    failed = []

    def one_by_one(function, items, **_):
        "As nbdev does without workers, but going on after a notebook that fails."
        for item in items:
            try:
                function(item)
            except Exception as error:
                reason = error.__cause__ or error
                failed.append(
                    f"{Path(item[0]).name}: nbdev cannot process it, {type(reason).__name__}: {reason}; "
                    f"{error}"
                )

    shutil.rmtree(root / "_proc", ignore_errors=True)
    with warnings.catch_warnings(), patch.object(nbdev.serve, "parallel", one_by_one):
        warnings.filterwarnings("ignore", message="Found cells containing imports and other code")
        return Path(nbdev.serve.proc_nbs(n_workers=0)), failed


def front_matter(notebook):
    "Title, description and output file from the raw cell that nbdev writes."
    for cell in notebook.cells:
        if cell.cell_type == "raw":
            return yaml.safe_load(cell.source.strip().strip("-")) or {}
    return {}


def describe_figures(cell):
    "The figures of a cell get the text of its `#| fig-alt` line, as Quarto does it."
    match = re.search(r"^#\|\s*fig-alt:\s*(.+)$", cell.source, flags=re.MULTILINE)
    if not match:
        return
    text = str(yaml.safe_load(match[1]))
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/svg+xml" in data:
            picture = base64.b64encode("".join(data.pop("image/svg+xml")).encode()).decode()
            source = f"data:image/svg+xml;base64,{picture}"
            data["text/html"] = f'<img src="{source}" alt="{html.escape(text)}">'
        for kind in {"image/png", "image/jpeg"} & set(data):
            output.metadata[kind] = {**output.metadata.get(kind, {}), "alt": text}


def prepare(notebook):
    "What Quarto would do with the `#|` lines: hide what is not to be shown, and drop the lines."
    for cell in notebook.cells:
        if cell.cell_type == "code":
            describe_figures(cell)
            tags = []
            if re.search(r"^#\|\s*(echo|include):\s*false", cell.source, flags=re.MULTILINE):
                tags.append("remove_input")
            if re.search(r"^#\|\s*(output|include):\s*false", cell.source, flags=re.MULTILINE):
                tags.append("remove_output")
            if re.search(r"^#\|\s*code-fold:\s*true", cell.source, flags=re.MULTILINE):
                tags.append("fold")
            cell.metadata["tags"] = tags
            cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.MULTILINE).strip("\n")
            for output in cell.outputs:
                if "text/markdown" in output.get("data", {}):
                    text = "".join(output["data"]["text/markdown"])
                    output["data"]["text/markdown"] = re.sub(r"\A---\n|\{target=[^}]*\}", "", text)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type != "raw"]
    return notebook


def page_names(processed):
    "Source path relative to nbs/ -> page path, for every processed notebook."
    names = {}
    for path in sorted(processed.rglob("*.ipynb")):
        relative = path.relative_to(processed)
        output = front_matter(nbformat.read(path, 4)).get("output-file", f"{relative.stem}.html")
        names[relative.as_posix()] = (relative.parent / output).as_posix()
    return names


def navigation(root, pages, titles, depth):
    "The sidebar as HTML, as seen from a page `depth` folders down."
    lines, current = [], None
    for section, source in sidebar.listed(root):
        if source in pages:
            if section != current:
                lines.append(f"<li><strong>{html.escape(section)}</strong></li>")
                current = section
            lines.append(
                f'<li><a href="{"../" * depth}{pages[source]}">{html.escape(titles[source])}</a></li>'
            )
    return "<ul>" + "".join(lines) + "</ul>"


def rewrite(body, pages, folder, site_url):
    """Headings get Quarto's anchors; links to notebooks, and nbdev's links to this site, become links to
    pages."""
    body = re.sub(r'<a class="anchor-link".*?</a>', "", body, flags=re.DOTALL)
    body = re.sub(
        r'<(h[1-6]) id="[^"]*"([^>]*)>(.*?)</\1>',
        lambda match: f'<{match[1]} id="{slug(match[3])}"{match[2]}>{match[3]}</{match[1]}>',
        body,
        flags=re.DOTALL,
    )

    def link(match):
        target, _, anchor = html.unescape(match[1]).partition("#")
        up = "../" * len(Path(folder).parts)
        if site_url and target.startswith(site_url):
            return f'href="{up}{target[len(site_url) :].lstrip("/")}#{anchor}" data-made="nbdev"'
        source = Path(folder, unquote(target)).as_posix()
        source = (
            str(Path(source))
            if ".." not in source
            else (Path("/") / source).resolve().relative_to("/").as_posix()
        )
        if source in pages:
            return f'href="{up}{pages[source]}{"#" + anchor if anchor else ""}"'
        return match[0]

    return re.sub(r'href="([^"]+)"', link, body)


def render(root, out, site_url=""):
    "All pages, and what they refer to, written to `out`; returns the page paths and which notebooks failed."
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    processed, failed = process(root)
    pages = page_names(processed)
    notebooks = {source: nbformat.read(processed / source, 4) for source in pages}
    titles = {
        source: front_matter(notebook).get("title", Path(source).stem)
        for source, notebook in notebooks.items()
    }
    remove = {
        "enabled": True,
        "remove_input_tags": ["remove_input"],
        "remove_all_outputs_tags": ["remove_output"],
    }
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        config=Config({"TagRemovePreprocessor": remove}),
    )
    shutil.rmtree(out, ignore_errors=True)
    for source, notebook in notebooks.items():
        matter, folder = front_matter(notebook), Path(source).parent.as_posix()
        body, _ = exporter.from_notebook_node(prepare(notebook))
        depth = len(Path(folder).parts)
        page = SHELL.format(
            title=html.escape(str(titles[source])),
            description=html.escape(str(matter.get("description") or "")),
            navigation=navigation(root, pages, titles, depth),
            body=rewrite(body, pages, folder, site_url),
        )
        target = out / pages[source]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page, encoding="utf-8")
    copy_resources(root / "nbs", out)
    return sorted(pages.values()), failed


class Links(HTMLParser):
    "Collects the anchors and the links of a page."

    def __init__(self):
        super().__init__()
        self.anchors, self.links = set(), []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        for name in ("href", "src"):
            if attrs.get(name) and tag not in ("link", "script"):
                self.links.append((attrs[name], "data-made" in attrs))


def read_links(path):
    parser = Links()
    parser.feed(Path(path).read_text(encoding="utf-8"))
    return parser


def copy_resources(source, out):
    "Files of nbs/ that a page links to (results, images) go beside the pages, as Quarto copies them."
    for page in sorted(out.rglob("*.html")):
        for link, _ in read_links(page).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not parts.path:
                continue
            target = (page.parent / unquote(parts.path)).resolve()
            if not target.exists() and target.is_relative_to(out.resolve()):
                original = source / target.relative_to(out.resolve())
                if original.is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(original, target)


def broken_links(out):
    "Every local link or anchor in the pages of `out` that leads nowhere, each a sentence."
    pages = {path.resolve(): read_links(path) for path in sorted(out.rglob("*.html"))}
    actual = []
    for page, content in pages.items():
        for link, made_by_nbdev in content.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.exists() or not target.is_relative_to(out.resolve()):
                actual.append(f"{page.name}: {link} leads nowhere")
            elif (
                parts.fragment
                and target in pages
                and not made_by_nbdev
                and unquote(parts.fragment) not in pages[target].anchors
            ):
                actual.append(f"{page.name}: {link}, the page has no such anchor")
    return actual


def lost_links(notebook, page):
    "The outside links of a notebook's text that its page lacks."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    shown = {html.unescape(link) for link, _ in read_links(page).links}
    wanted = dict.fromkeys(re.findall(r"\]\((https?://[^)\s]+)\)", text))
    return [
        f"{page.name}: the link {link} of {notebook.name} is lost" for link in wanted if link not in shown
    ]


def undescribed_images(page):
    "The images of a page that have no alternative text."
    images = re.findall(r"<img\b[^>]*>", page.read_text(encoding="utf-8"))
    silent = [
        image
        for image in images
        if not re.search(r'\balt="[^"]+"', image) or "No description has been provided" in image
    ]
    return [f"{page.name}: {len(silent)} of {len(images)} images have no alternative text"] if silent else []


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "_docs")
    started, out = time.time(), parser.parse_args().out
    from nbdev.config import get_config

    config = get_config()
    pages, failed = render(ROOT, out, config.doc_host + config.doc_baseurl)
    broken, undescribed = broken_links(out), []
    for source, page in page_names(ROOT / "_proc").items():
        broken += lost_links(ROOT / "nbs" / source, out / page)
        undescribed += undescribed_images(out / page)
    counts = (
        f"{len(pages)} pages in {out.name}/, {len(failed)} failed, {len(broken)} broken links, "
        f"{len(undescribed)} with images without a text, {time.time() - started:.0f} s"
    )
    print("\n".join(failed + broken + undescribed + [counts]))
    return 1 if failed or broken or undescribed else 0


if __name__ == "__main__":
    sys.exit(main())
