"""Label tables with anything in them: read with labels that are right, or refused in a sentence; no picture
outside the folder is opened, nothing is written."""

import csv
import functools
import io
import os
import shutil

import numpy as np
import pytest
from fuzz_world import MARKERS, NUMBERS, call_checked, examples, expect, odd_text, run_checked, small_world
from hypothesis import given
from hypothesis import strategies as st

from genaug.data.label_columns import find_tables, read_table
from genaug.data.label_tables import check_label_tables, open_label_tables


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with small_world(tmp_path_factory.mktemp("fuzz_tables")) as made:
        home = made.fresh("plain")
        for number in range(6):
            shutil.copy(
                made.photos / "train" / ("cat", "dog")[number % 2] / f"{number % 3}.png",
                home / f"{number}.png",
            )
        shutil.copy(home / "0.png", made.root / "outside.png")
        os.symlink("../outside.png", home / "link.png")
        os.symlink("../photos", home / "linked")
        (home / "files").mkdir()
        shutil.copy(home / "0.png", home / "files" / "deep.png")
        yield made


# --- tables
# ---------------------------------------------------------------------------

paths = st.one_of(
    st.sampled_from([f"{number}.png" for number in range(6)]),
    st.sampled_from(
        [
            "files/deep.png",
            "./0.png",
            "0.PNG",
            "../outside.png",
            "link.png",
            "linked/train/cat/0.png",
            "/etc/passwd",
            "~/x.png",
            "~root/x.png",
            "C:\\x.png",
            "\\\\host\\x.png",
            "..\\outside.png",
            "files/../../outside.png",
            "/dev/zero",
            "/dev/null",
            "/proc/self/mem",
            ".",
            "..",
            "",
            " ",
            "files",
            "files/",
            "0.png/",
            "a" * 300 + ".png",
            "x/" * 3000,
            "file:///etc/passwd",
            "http://127.0.0.1/x.png",
            "\x1b[2J.png",
            "x\nFORGED.png",
            "nul",
            "-x",
            "*",
            "?.png",
        ]
    ),
    odd_text,
)
values = st.one_of(
    st.sampled_from(["0", "1", "0", "1", "0", "1", "1.0", "0.0"]),
    st.sampled_from(NUMBERS),
    st.sampled_from(
        [
            "",
            "NA",
            "nan",
            "True",
            "yes",
            "=1+1",
            "1;0",
            "-1",
            "2",
            "1e400",
            "inf",
            "1e-320",
            "0x1",
            "１",
            "1 ",
            "'1'",
        ]
    ),
    odd_text,
)
headers = st.one_of(
    st.sampled_from(
        [
            "image",
            "path",
            "Path",
            "label",
            "a",
            "b",
            "patient_id",
            "age",
            "",
            " ",
            "image",
            "file_name",
            "split",
            "Unnamed: 0",
            "index",
            "id",
        ]
    ),
    st.sampled_from(MARKERS),
    odd_text,
)


@st.composite
def tables(draw):
    "The bytes of one table."
    width = draw(st.integers(0, 5))
    header = draw(st.lists(headers, min_size=width, max_size=width))
    if draw(st.integers(0, 3)):
        header = ["image", *header]
    rows = [[draw(paths), *(draw(values) for _ in header[1:])] for _ in range(draw(st.integers(0, 6)))]
    if draw(st.integers(0, 4)) == 0:
        rows = [
            row + draw(st.lists(values, max_size=2))
            if draw(st.booleans())
            else row[: draw(st.integers(0, len(row)))]
            for row in rows
        ]
    text, mark = io.StringIO(), draw(st.sampled_from(",,,;\t|: "))
    writer = csv.writer(
        text,
        delimiter=mark,
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])),
        lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\n\r"])),
        escapechar="\\",
    )
    writer.writerow(header)
    writer.writerows(rows)
    encoded = text.getvalue().encode(
        draw(
            st.sampled_from(
                [
                    "utf-8",
                    "utf-8",
                    "utf-8",
                    "utf-8-sig",
                    "utf-16",
                    "utf-16-le",
                    "utf-32",
                    "latin-1",
                    "cp1252",
                    "utf-7",
                ]
            )
        ),
        "replace",
    )
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        index = draw(st.integers(0, len(encoded)))
        encoded = (
            encoded[:index]
            + draw(
                st.sampled_from(
                    [b"\0", b'"', b"\xff", b"\r", b"\n", b"\x1a", b",", b'""', b"\xef\xbb\xbf", b"\xc3"]
                )
            )
            + encoded[index:]
        )
    return encoded


def good_table(rows=6):
    return (
        "image,a,b\n" + "".join(f"{number}.png,{number % 2},{1 - number % 2}\n" for number in range(rows))
    ).encode()


@functools.cache
def hostile_tables():
    "Single tables that a strategy would hardly find."
    many = 100_000
    return {
        "empty": b"",
        "newline": b"\n",
        "bom": b"\xef\xbb\xbf",
        "nul": b"\0" * 1000,
        "header only": b"image,a\n",
        "no line end": b"image,a",
        "many columns": (
            "image," + ",".join(f"c{number}" for number in range(many)) + "\n0.png" + ",1" * many + "\n"
        ).encode(),
        "many names alike": ("image," + ",".join("c" for _ in range(many)) + "\n").encode(),
        "long cell": b"image,a\n" + b"x" * 20_000_000 + b",1\n0.png,1\n",
        "long header": b"image," + b"x" * 5_000_000 + b"\n0.png,1\n",
        "long line no mark": b"x" * 20_000_000,
        "open quote": b'image,a\n"0.png,1\n' + b"1.png,0\n" * 50_000,
        "quotes": b'"' * 500_000,
        "many rows missing": b"image,a\n" + b"".join(b"m%d.png,1\n" % number for number in range(50_000)),
        "commas": b"," * 2_000_000,
        "semicolons": b"image;a\n0.png;1\n",
        "formula": b"image,=cmd|' /C calc'!A0\n0.png,1\n",
        "numbers as names": b"image,1,1.0,01\n0.png,1,0,1\n1.png,0,1,0\n",
        "huge label": b"image,a\n0.png,1e400\n1.png,1\n2.png,0\n",
        "long number": b"image,a\n0.png," + b"9" * 5000 + b"\n1.png,1\n2.png,0\n",
        "inf": b"image,a\n0.png,inf\n1.png,1\n2.png,0\n",
        "embedded newline": b'image,"a\nFORGED"\n0.png,1\n1.png,0\n',
        "embedded escape": b'image,"\x1b]0;x\x07"\n0.png,1\n1.png,0\n',
        "html": b"image,<hostile>\n0.png,1\n1.png,0\n",
        "mixed ends": b"image,a\r\n0.png,1\n1.png,0\r2.png,1\r\n",
        "binary": bytes(range(256)) * 50,
        "png": b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
        "zip": b"PK\x03\x04" + b"\0" * 100,
        "gzip": b"\x1f\x8b\x08" + b"\0" * 100,
        "utf-16": good_table().decode().encode("utf-16"),
        "latin-1": "image,é\n0.png,1\n".encode("latin-1"),
        "path is number": b"image,a\n1,1\n2,0\n",
        "path is blank": b"image,a\n,1\n ,0\n",
        "device": b"image,a\n/dev/zero,1\n",
        "long path": b"image,a\n" + b"x/" * 5000 + b".png,1\n",
        "nul in path": b"image,a\n0\0.png,1\n0.png,1\n",
        "surrogate": b"image,a\n\xed\xa0\x80.png,1\n",
        "patients": b"image,patient_id,a\n0.png,,1\n1.png,nan,0\n2.png,1e400,1\n",
        "date": b"image,a\n0.png,2020-01-01\n1.png,1\n2.png,0\n",
        "only header quote": b'"image","a\n',
        "equal paths": b"image,a\n0.png,1\n./0.png,1\n0.png,0\n",
        "folder": b"image,a\nfiles,1\n0.png,1\n",
        "tabs": b"image\ta\n0.png\t1\n1.png\t0\n",
        "space": b"image a\n0.png 1\n",
        "comment": b"# a comment\nimage,a\n0.png,1\n",
        "index column": b",image,a\n0,0.png,1\n1,1.png,0\n",
        "three": b"image,a\n0.png,1,1\n1.png,0,0\n",
        "all labels nan": b"image,a\n0.png,\n1.png,\n",
        "label is path": b"image,path\n0.png,1.png\n",
    }


def place_table(world, train, test=None):
    home = world.copy_of("plain", "tables")
    (home / "train.csv").write_bytes(train)
    if test is not None:
        (home / "test.csv").write_bytes(test)
    return home


def judge(world, train, test=None, command=False):
    "Through the library and, where asked, the command line; what opens lies inside and has labels 0 and 1."
    home = place_table(world, train, test)
    call_checked(check_label_tables, home)
    for strict in (True, False):
        sets = call_checked(open_label_tables, home, strict=strict).value or {}
        for images in sets.values():
            expect(set(np.unique(images.labels)) <= {0.0, 1.0}, "labels other than 0 and 1")
            outside = [
                str(path)
                for path in images.pixels
                if not os.path.realpath(path).startswith(os.path.realpath(home) + os.sep)
            ]
            expect(not outside, f"a picture outside the folder is opened: {outside[:1]}")
            expect(all(os.path.isfile(path) for path in images.pixels), "a picture that is no file is opened")
    if command:
        run_checked(world, ["check", f"label-table:{home}", "--quiet"])
        run_checked(
            world,
            [
                "augment",
                f"label-table:{home}",
                "out",
                "--method",
                "smote",
                "--shots",
                "1",
                "--copies",
                "1",
                "--quiet",
            ],
            out="out",
        )


# --- the claims
# ---------------------------------------------------------------------------


def test_a_plain_table_opens(world):
    home = place_table(world, good_table())
    assert run_checked(world, ["check", f"label-table:{home}", "--quiet"]).code == 0


HEAVY = (
    "many columns",
    "long cell",
    "many rows missing",
    "commas",
    "long header",
    "long line no mark",
    "open quote",
    "quotes",
    "many names alike",
)


@pytest.mark.parametrize("name", [name for name in hostile_tables() if name not in HEAVY])
def test_a_hostile_table_is_read_rightly_or_refused(world, name):
    judge(
        world,
        hostile_tables()[name],
        command=name
        in ("embedded newline", "embedded escape", "html", "inf", "surrogate", "nul in path", "latin-1"),
    )


@pytest.mark.parametrize(
    "path", ["link.png", "linked/train/cat/0.png", "../outside.png", "files/../../outside.png", "/etc/passwd"]
)
def test_a_path_that_leads_out_of_the_folder_by_any_way_opens_nothing(world, path):
    judge(world, good_table() + f"{path},1,0\n".encode(), command=True)


@examples(12)
@given(tables())
def test_any_table_is_read_rightly_or_refused(world, table):
    judge(world, table)


@pytest.mark.parametrize("name", ["long cell", "quotes", "many names alike"])
def test_a_heavy_table_takes_a_bounded_time(world, name):
    call_checked(check_label_tables, place_table(world, hostile_tables()[name]))


@examples(3)
@given(tables(), tables())
def test_any_two_tables_are_checked_by_the_command(world, train, test):
    judge(world, train, test, command=True)


@pytest.mark.long
@examples(1000)
@given(tables())
def test_many_tables_are_read_rightly_or_refused(world, table):
    judge(world, table)


@pytest.mark.long
@examples(150)
@given(tables(), tables())
def test_many_pairs_of_tables_are_checked_by_the_command(world, train, test):
    judge(world, train, test, command=True)


@pytest.mark.long
@pytest.mark.parametrize("name", hostile_tables())
def test_every_hostile_table_goes_through_the_command(world, name):
    judge(world, hostile_tables()[name], command=True)
    judge(world, good_table(), hostile_tables()[name], command=True)


@pytest.mark.long
@examples(100)
@given(
    st.lists(
        odd_text.filter(
            lambda text: (
                "/" not in text
                and "\0" not in text
                and text not in ("", ".", "..")
                and len(os.fsencode(text.encode("utf-8", "ignore").decode())) < 200
            )
        ),
        min_size=1,
        max_size=4,
    )
)
def test_tables_with_odd_names_are_found_or_refused(world, names):
    home = world.copy_of("plain", "tables")
    for name in names:
        with open(os.path.join(home, name.encode("utf-8", "ignore").decode() + "_train.csv"), "wb") as file:
            file.write(good_table())
    actual = call_checked(find_tables, home).value
    for split, path in (actual or {}).items():
        call_checked(read_table, path, home, split)
    run_checked(world, ["check", f"label-table:{home}", "--quiet"])
