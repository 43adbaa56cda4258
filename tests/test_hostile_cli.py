"""No option value gives "Fault of the program": every command with every option and hostile values, in
process."""

import os
import shutil
import unicodedata

import pytest

import genaug.cli as cli
from genaug.commands.terminal import Refusal

VALUES = [
    "",
    " ",
    "\0",
    "a\0b",
    "\x1b[2J\x07",
    "\u202egnp",
    "\udcff\ud800",
    "٣",
    "²",
    "½",
    "Ⅷ",
    "-1",
    "-0",
    "+5",
    "1e5",
    "1e308",
    "1e-400",
    "inf",
    "-inf",
    "nan",
    "NaN",
    "0x10",
    "1_000",
    "1,2",
    "1.5.2",
    "true",
    "None",
    "[]",
    "{}",
    "[1, 2]",
    "9" * 30,
    "9" * 5000,
    "-" * 50,
    "x" * 100_000,
    "é" * 5000,
    "a,b,,c",
    ",",
    ";",
    "=",
    "@",
    "+",
    "+" * 200,
    "a@b=c",
    "diff-ii@",
    "diff-ii@=1",
    "diff-ii@x",
    "mixup+mixup+mixup",
    "smote@copies=1e309",
    "/",
    ".",
    "..",
    "../..",
    "~",
    "~root/x",
    "~nobody-of-that-name",
    "/dev/null",
    "/dev/full",
    "/dev/zero",
    "/proc/self/mem",
    "/etc",
    "FILE",
    "FOLDER",
    "FIFO",
    "LOOP",
    "FILE/x",
    "published:",
    "published:../../x",
    "label-table:",
    "label-table:/dev/null",
    "label-table:FOLDER",
    "mimic-cxr-lt:FOLDER",
    "zip:x",
    "http://[::1",
    "https://x@y/",
    "file:///etc/passwd",
    "%s%n",
    "$(reboot)",
    "'; --",
    "<script>",
    "\\",
    "\n\r\t",
    "a\nb",
    "0-9999999999999",
    "5-1",
    "1-",
    "-",
    "--",
    "cuda:99999999999",
    "cpu:-1",
    "cuda:",
]
COMMANDS = {
    "check": (["digits"], ["SOURCE", "--min-size", "--names", "--write-names", "--backbone"]),
    "augment": (
        ["digits", "OUT"],
        [
            "SOURCE",
            "OUT",
            "--method",
            "--copies",
            "--total",
            "--shots",
            "--imbalance",
            "--seed",
            "--backbone",
            "--device",
            "--metaclass",
            "--names",
            "--suffixes",
            "--batch-size",
            "--condition",
        ],
    ),
    "compare": (
        ["digits", "--out", "OUT"],
        [
            "SOURCE",
            "--methods",
            "--shots",
            "--imbalance",
            "--seeds",
            "--repeats",
            "--copies",
            "--use",
            "--replace",
            "--updates",
            "--classifier",
            "--classifier-weights",
            "--backbone",
            "--device",
            "--metaclass",
            "--names",
            "--suffixes",
            "--batch-size",
            "--test-share",
            "--test-part",
            "--condition",
            "--out",
        ],
    ),
    "suffixes": (
        ["digits", "OUT.txt"],
        [
            "SOURCE",
            "OUT.txt",
            "--captioner",
            "--llm",
            "--llm-model",
            "--shots",
            "--imbalance",
            "--seed",
            "--metaclass",
            "--names",
            "--published",
            "--device",
        ],
    ),
    "methods": (["diff-ii"], ["NAME"]),
    "report": (["OUT"], ["OUT"]),
    "audit": (["OUT"], ["OUT", "--source", "--names"]),
    "reproduce": (
        ["diff_ii_main_job", "--out", "OUT"],
        [
            "TABLE",
            "--scale",
            "--methods",
            "--seeds",
            "--data",
            "--backbone",
            "--classifier-weights",
            "--names",
            "--device",
            "--out",
        ],
    ),
}
CASES = [(command, option) for command, (_, options) in COMMANDS.items() for option in options]
SLOW = {
    ("compare", "--classifier"),
    ("compare", "--backbone"),
    ("augment", "--backbone"),
    ("suffixes", "--llm"),
    ("suffixes", "--captioner"),
}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with a file, a folder, a pipe and a loop of links; a command that gets as far as opening
    pictures is stopped there."""

    def stop(*_, **__):
        return (_ for _ in ()).throw(Refusal("As far as the pictures."))

    monkeypatch.setattr("genaug.data.sources.examine_source", stop)
    from genaug import preflight

    monkeypatch.setattr(preflight, "open_sets", stop)
    monkeypatch.setattr("genaug.stable_diffusion.load_backbone", stop)
    monkeypatch.setattr("genaug.cost.load_backbone", stop)
    try:
        import papermill

        monkeypatch.setattr(papermill, "execute_notebook", stop)
    except ImportError:
        pass
    (tmp_path / "FILE").write_text("on grass\n")
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "FOLDER" / "file").write_text("mine")
    os.mkfifo(tmp_path / "FIFO")
    (tmp_path / "LOOP").symlink_to("LOOP")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command_line(command, option, value):
    "The arguments with a value in the place of an option or a positional argument."
    base = list(COMMANDS[command][0])
    if option.startswith("--"):
        return (
            [command, *base, f"{option}={value}"]
            if option not in base
            else [command, *(value if base[index - 1] == option else word for index, word in enumerate(base))]
        )
    position = {"SOURCE": 0, "TABLE": 0, "NAME": 0, "OUT": 1 if command == "augment" else 0, "OUT.txt": 1}[
        option
    ]
    return [
        command,
        *(["--"] if value.startswith("-") else []),
        *(value if number == position else word for number, word in enumerate(base)),
    ]


def is_harmless(text):
    "Is there no character in it that moves a cursor or turns the direction of writing?"
    return not any(
        unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in text.replace("\n", "")
    )


def check_answer(command, option, value, world, capsys, before):
    arguments = command_line(command, option, value)
    code = cli.run(arguments)
    heard = capsys.readouterr()
    lines = [line for line in heard.err.splitlines() if line.strip()]
    shown = f"{arguments!r:.300} -> {code}: {heard.err[-500:]}"
    assert code in (0, 2), shown
    assert len(lines) == (1 if code == 2 and command != "check" or lines else 0), shown
    assert all(line.startswith("genaug: ") and len(line) < 1500 for line in lines), shown
    assert "Fault of the program" not in heard.err, shown
    assert "Traceback" not in heard.err, shown
    assert is_harmless(heard.out), shown
    assert is_harmless(heard.err), shown
    if (
        command == "reproduce" and "As far as" in heard.err
    ):  # the folder of rows is made before the notebook is run
        for path in world.iterdir():
            if path.name not in before:
                shutil.rmtree(path)
    assert sorted(path.name for path in world.iterdir()) == before, shown


@pytest.mark.parametrize("command", COMMANDS)
def test_no_value_of_an_option_is_a_fault(command, world, capsys):
    """Every option with every twentieth value, beginning at another one for each option; options that name
    models only in the long form."""
    before = sorted(path.name for path in world.iterdir())
    for index, (_, option) in enumerate(case for case in CASES if case[0] == command and case not in SLOW):
        for value in VALUES[index % 20 :: 20]:
            check_answer(command, option, value, world, capsys, before)


@pytest.mark.long
@pytest.mark.parametrize("command, option", CASES)
def test_no_value_at_all_is_a_fault(command, option, world, capsys):
    before = sorted(path.name for path in world.iterdir())
    for value in VALUES:
        check_answer(command, option, value, world, capsys, before)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [""],
        ["\0"],
        ["--"],
        ["--json"],
        ["check", "--json"],
        ["x" * 100_000],
        ["check", "a", "b", "c"],
        ["augment", "--\x1b[2J"],
        ["check", "--min-size"],
        ["compare", "digits", "--quiet=maybe"],
        ["\udcff"],
        ["check", "-\udcff"],
    ],
)
def test_no_command_line_is_a_fault(arguments, capsys):
    code = cli.run(arguments)
    heard = capsys.readouterr()
    assert code in (0, 2)
    assert "Fault of the program" not in heard.err
    assert is_harmless(heard.out)
    assert is_harmless(heard.err)
    assert len(heard.err) < 1500
