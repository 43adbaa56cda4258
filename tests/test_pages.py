"""The site: every notebook stands in the sidebar in its order, and a link that leads nowhere is seen."""

import base64
import copy
import json
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import pages  # noqa: E402
import sidebar  # noqa: E402


def test_the_sidebar_lists_every_notebook_in_reading_order():
    listed = [source for _, source in sidebar.listed(ROOT)]
    nbs = ROOT / "nbs"
    actual = [path.relative_to(nbs).as_posix() for path in nbs.glob("*/[0-9]*.ipynb")]
    folders = [folder for folder, _ in sidebar.SECTIONS]
    order = sorted(actual, key=lambda name: (folders.index(name.partition("/")[0]), name))
    prose = sorted(path.name for path in nbs.glob("[!_.]*.ipynb") if path.name != "index.ipynb")
    library = ["index.ipynb", *prose, *order]
    tables = sorted(f"tables/{path.name}" for path in (nbs / "tables").glob("[!_]*.ipynb"))
    assert [name for name in listed if not name.startswith("tables/")] == library
    assert sorted(name for name in listed if name.startswith("tables/")) == tables


def test_the_sidebar_is_what_the_notebooks_make():
    assert sidebar.is_made(ROOT), "run python tools/sidebar.py"


@pytest.fixture
def book(tmp_path):
    "A copy of the site's configuration, and a project with only the names of the notebooks."
    shutil.copyfile(ROOT / "_quarto.yml", tmp_path / "_quarto.yml")
    for _, source in sidebar.listed(ROOT):
        (tmp_path / "nbs" / source).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "nbs" / source).touch()
    assert sidebar.is_made(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name, section, before",
    [
        ("methods/16_methods.lab_transfer.ipynb", "Methods", "methods/15_methods.colour_transfer.ipynb"),
        ("classic/07_zebra.ipynb", "Classic augmentation", "classic/07_schedule.ipynb"),
        ("learned/16_concepts.last.ipynb", "Learned parts", "learned/15_name_checks.ipynb"),
        ("commands/13_more.ipynb", "Command line", "commands/12_cli.ipynb"),
        ("tables/another.ipynb", "Tables", "tables/photographs_first_look.ipynb"),
    ],
)
def test_a_new_notebook_needs_no_hand_edit(book, name, section, before):
    (book / "nbs" / name).touch()
    assert not sidebar.is_made(book)
    (book / "_quarto.yml").write_text(sidebar.generate(book))
    listed = sidebar.listed(book)
    assert listed[listed.index((section, name)) - 1] == (section, before)
    assert [entry for entry in listed if entry[1] != name] == sidebar.listed(ROOT)
    assert sidebar.is_made(book)


def test_a_notebook_that_is_gone_leaves_the_sidebar(book):
    (book / "nbs" / "tables" / "diff_ii_strength.ipynb").unlink()
    (book / "_quarto.yml").write_text(sidebar.generate(book))
    gone = ("Tables", "tables/diff_ii_strength.ipynb")
    assert sidebar.listed(book) == [entry for entry in sidebar.listed(ROOT) if entry != gone]


def test_the_order_of_tables_is_kept(book):
    path = book / "_quarto.yml"
    first, other = "tables/diff_ii_strength", "tables/diff_ii_few_shot"
    swapped = path.read_text().replace(first, "tables/x").replace(other, first).replace("tables/x", other)
    path.write_text(swapped)
    assert sidebar.generate(book) == swapped


def test_a_configuration_without_marks_is_refused(book):
    path = book / "_quarto.yml"
    path.write_text(path.read_text().replace(sidebar.END, ""))
    with pytest.raises(SystemExit, match="must hold two marks"):
        sidebar.generate(book)


def test_quarto_reads_one_configuration():
    link = ROOT / "nbs" / "_quarto.yml"
    assert link.is_symlink()
    assert link.readlink() == Path("../_quarto.yml")
    import yaml

    site = yaml.safe_load(link.read_text(encoding="utf-8"))
    assert site["project"]["output-dir"] == "_docs"
    assert site["format"]["html"]["html-math-method"] == "mathml"
    assert ("keep-md" in site["format"]["html"]) == ("commonmark" in site["format"])


@pytest.fixture
def site(tmp_path):
    "Two pages that link to each other; `check` writes one link into the first and returns what is broken."
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "b.html").write_text(
        '<h2 id="the-circle">The circle</h2><a href="../a.html">back</a>'
    )

    def check(link):
        (tmp_path / "a.html").write_text(
            f'<h2 id="top">A</h2><a {link}>link</a><img src="data:image/png;base64,AAAA">'
        )
        return pages.broken_links(tmp_path)

    return check


@pytest.mark.parametrize(
    "link",
    [
        'href="methods/b.html"',
        'href="methods/b.html#the-circle"',
        'href="#top"',
        'href="https://example.org/a#b"',
        'href="methods/b.html#no-such" data-made="nbdev"',
    ],
)
def test_a_good_link_passes(site, link):
    assert site(link) == []


@pytest.mark.parametrize(
    "link, sentence",
    [
        ('href="c.html"', "leads nowhere"),
        ('href="methods/c.html"', "leads nowhere"),
        ('href="images/no.png"', "leads nowhere"),
        ('href="#bottom"', "no such anchor"),
        ('href="methods/b.html#square"', "no such anchor"),
        ('href="../outside.html"', "leads nowhere"),
        ('href="c.html" data-made="nbdev"', "leads nowhere"),
    ],
)
def test_a_broken_link_is_seen(site, link, sentence):
    (actual,) = site(link)
    assert sentence in actual


@pytest.mark.parametrize(
    "shown, lost", [(True, []), (False, ["a.html: the link https://a.org/x of a.ipynb is lost"])]
)
def test_a_link_of_a_notebook_that_its_page_lacks_is_seen(tmp_path, shown, lost):
    cells = [{"cell_type": "markdown", "source": ["See [the paper](https://a.org/x) and [a page](b.ipynb)."]}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "a.html").write_text('<a href="https://a.org/x">the paper</a>' if shown else "<p>See</p>")
    assert pages.lost_links(tmp_path / "a.ipynb", tmp_path / "a.html") == lost


@pytest.mark.parametrize("kind", ["image/png", "image/svg+xml"])
def test_a_figure_has_its_alternative_text_on_the_page(tmp_path, kind):
    picture = base64.b64encode(b"PNG").decode() if kind == "image/png" else "<svg></svg>"
    output = nbformat.v4.new_output("display_data", {kind: picture})
    source = '#| fig-alt: "A bar: 3 < 4."\nshow()'
    pages_of = {}
    for name, text in (("told", source), ("silent", "show()")):
        cell = nbformat.v4.new_code_cell(text, outputs=[copy.deepcopy(output)])
        notebook = pages.prepare(nbformat.v4.new_notebook(cells=[cell]))
        body, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
        pages_of[name] = tmp_path / f"{name}.html"
        pages_of[name].write_text(body)
    assert 'alt="A bar: 3 &lt; 4."' in pages_of["told"].read_text()
    assert pages.undescribed_images(pages_of["told"]) == []
    assert pages.undescribed_images(pages_of["silent"]) == [
        "silent.html: 1 of 1 images have no alternative text"
    ]


@pytest.mark.parametrize(
    "heading, anchor",
    [
        ("Where we differ from the paper and its code", "where-we-differ-from-the-paper-and-its-code"),
        ("Augmenter: plan, paint, select", "augmenter-plan-paint-select"),
        ("content_hash", "content_hash"),
        ("2. The circle", "the-circle"),
        ('<code>LabeledImages.save</code><a class="anchor-link">¶</a>', "labeledimages.save"),
    ],
)
def test_anchors_are_those_of_quarto(heading, anchor):
    assert pages.slug(heading) == anchor


@pytest.mark.parametrize(
    "folder, before, after",
    [
        (".", "45_methods.diff_ii.ipynb#the-circle", "methods.diff_ii.html#the-circle"),
        ("tables", "../45_methods.diff_ii.ipynb", "../methods.diff_ii.html"),
        (".", "https://site/genaug/core.html#x", "core.html#x"),
        (".", "https://example.org/a", "https://example.org/a"),
    ],
)
def test_links_to_notebooks_become_links_to_pages(folder, before, after):
    names = {"45_methods.diff_ii.ipynb": "methods.diff_ii.html"}
    body = pages.rewrite(f'<a href="{before}">', names, folder, "https://site/genaug")
    assert f'href="{after}"' in body


def test_files_that_a_page_links_to_go_along(tmp_path):
    out, source = tmp_path / "out", tmp_path / "nbs"
    out.mkdir()
    (source / "results").mkdir(parents=True)
    (source / "results" / "few_shot.csv").write_text("a\n")
    (out / "a.html").write_text('<a href="results/few_shot.csv">rows</a>')
    pages.copy_resources(source, out)
    assert pages.broken_links(out) == []
    assert (out / "results" / "few_shot.csv").read_text() == "a\n"
