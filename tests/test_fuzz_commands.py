"""Command lines with anything in every option, and arms in every spelling: answered in one sentence, within
bounds, and nothing is left behind."""

import json
import shutil

import pytest
import typer
from fuzz_world import (
    NUMBERS,
    QUICK,
    WORDS,
    call_checked,
    examples,
    expect,
    odd_number,
    odd_text,
    run_checked,
    small_world,
    wipe,
)
from hypothesis import given
from hypothesis import strategies as st

import genaug.cli
from genaug.arms import make_arm, parse_methods
from genaug.registry import ALIASES, groups, method_names, methods


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with small_world(tmp_path_factory.mktemp("fuzz_commands")) as made:
        expect(
            run_checked(
                made,
                ["augment", made.photos, "made", "--method", "smote", "--copies", "1", "--quiet"],
                out="made",
            ).code
            == 0,
            "the plain set was not made",
        )
        shutil.copytree(made.cwd / "made", made.root / "made")
        wipe(made.cwd / "made")
        yield made


def plain_commands(world):
    "A valid, cheap command line for every command; the first list are its arguments."
    photos = str(world.photos)
    return {
        "check": ([photos], ["--quiet"]),
        "augment": ([photos, "out"], ["--method", "smote", "--copies", "1", "--shots", "1", "--quiet"]),
        "compare": ([photos], ["--methods", "original,smote", *QUICK, "--out", "out"]),
        "suffixes": (["digits", "out.txt"], ["--quiet"]),
        "report": ([str(world.root / "made")], []),
        "audit": ([str(world.root / "made")], []),
        "reproduce": (["no_such_table"], ["--no-run"]),
        "methods": (["diff-ii"], []),
    }


def options():
    "(command, option) of everything the command line takes, as it is declared; '' stands for each argument."
    command = typer.main.get_command(genaug.cli.app)
    return [
        (
            name,
            parameter.opts[0] if parameter.param_type_name == "option" else f"argument {position}",
            getattr(parameter, "is_flag", False),
        )
        for name, item in sorted(command.commands.items())
        for position, parameter in enumerate(item.params)
        if parameter.name != "help"
    ]


ASKED = tuple((command, option) for command, option, flag in options() if not flag)
SETTABLE = {
    "--copies": (
        "0",
        "-1",
        "nan",
        "inf",
        "-inf",
        "1e9",
        "1e300",
        "1e400",
        "abc",
        "",
        " ",
        "1,5",
        "١",
        "0.0001",
    ),
    "--seeds": (
        "0",
        "0-1000000000000",
        "5-3",
        "-1",
        "a",
        "",
        ",",
        "9" * 30,
        "9" * 5000,
        "²",
        "1-2-3",
        "0,0",
        "999999999999",
        "0-99999999",
        "1.5",
        " ",
    ),
    "--repeats": ("0", "-1", "1000000", "1000000000000", "x", "", "9" * 5000),
    "--shots": ("0", "-1", "x", "1.5", "²", "9" * 5000, "", "NONE ", "1e3"),
    "--imbalance": ("0", "-1", "nan", "inf", "x", "1e400", "0.5", ""),
    "--seed": ("-1", "x", "9" * 30, "9" * 5000, "1.5", "", "nan"),
    "--total": ("0", "-1", "10000000000", "1.5", "x", ""),
    "--updates": ("0", "-1", "10000000000000", "x", "1.5", ""),
    "--replace": ("-0.1", "1.1", "nan", "inf", "x", ""),
    "--test-share": ("0", "1", "-1", "nan", "inf", "x", "1e-300", "0.999999"),
    "--batch-size": ("0", "-1", "x", "1000000000000000000000000", "", "1.5"),
    "--min-size": ("0", "-1", "x", "1000000000000000000000", "", "1.5"),
    "--device": (
        "cuda",
        "cuda:99",
        "cuda:-1",
        "mps",
        "meta",
        "xla",
        "cpu:1",
        "gpu",
        "",
        " ",
        "CPU",
        "cpu\n",
        "é",
        "\x1b[2J",
        "x" * 5000,
    ),
    "--condition": ("validaton", "NATURAL", "", " ", "correlated", "validation", "\x1b[2J", "x\nFORGED"),
    "--classifier": (
        "",
        "resnet",
        "no such",
        "../x",
        "\x1b[2J",
        "tiny",
        "letters.x",
        "x" * 5000,
        "hf_hub:x/y",
        "local-dir:/x",
    ),
    "--classifier-weights": (
        "",
        "no/such",
        "/etc/passwd",
        "..",
        "/",
        "hub.tag",
        "\x1b[2J",
        "embedded",
        "x" * 5000,
        "a\0b",
    ),
    "--use": ("", "swap", "append ", "partners", "APPEND", "\x1b[2J"),
    "--test-part": ("", "tset", "train", "val", "../x", "shifted", "all"),
    "--suffixes": ("", "no/such", "/", "published:", "published:x", "/dev/null", "a\0b", "NONE", "x" * 5000),
    "--backbone": ("", "tinny", "no/such", "..", "/", "a/b/c", "\x1b[2J", "x" * 300, "a\0b", "http://x/y"),
    "--metaclass": ("x" * 5000, "{}", "{0}", "\x1b[2J", "x\nFORGED", "\udcff"),
    "--names": (
        "",
        "no/such",
        "/",
        "..",
        "published:",
        "published:x",
        "published:cub",
        "/dev/null",
        "a\0b",
        "NONE",
        "x" * 5000,
    ),
    "--write-names": (
        "",
        ".",
        "/",
        "/dev/null",
        "/proc/x",
        "no/such/x.csv",
        "x" * 300,
        "a\0b",
        "~nobody",
        "new.csv",
    ),
    "--out": (
        "",
        ".",
        "..",
        "/",
        "/dev/null",
        "/dev/null/x",
        "/proc/x",
        "a\0b",
        "x" * 300,
        "x/" * 3000,
        "../photos",
        "../photos/out",
        "../photos/train/cat/0.png",
        "~nobody",
    ),
    "--source": ("", "no such", "digits", "/etc/passwd", "label-table:", "..", "x:y", "a\0b"),
    "--methods": (
        "",
        ",",
        "x",
        "original,",
        "original,original",
        "+",
        "@",
        "smote@x=1",
        "smote+mixup+cutmix",
        "\x1b[2J",
        "original," * 3000 + "x",
        "mixup@alpha=-1",
        "mixup@alpha=abc",
    ),
    "--method": (
        "",
        ",",
        "original",
        "mixup",
        "smote,smote",
        "diff-i",
        "smote@neighbours=-1",
        "smote@neighbours=abc",
        "\x1b[2J",
    ),
    "--captioner": ("", "no/such", "..", "/", "a/b/c", "\x1b[2J", "a\0b"),
    "--llm": (
        "",
        "no/such",
        "http://127.0.0.1:1/v1",
        "https://u:p@h/",
        "http://[::1",
        "http://\x1b",
        "..",
        "ftp://x",
    ),
    "--llm-model": ("x", "\x1b[2J"),
    "--published": ("", "x", "cub", "../x", "\x1b[2J"),
    "--scale": ("", "hours", "paper ", "\x1b[2J"),
}
PLACES = (
    "",
    ".",
    "..",
    "/",
    "/dev/null",
    "/dev/null/x",
    "/proc/x",
    "a\0b",
    "x" * 300,
    "x/" * 3000,
    "../photos",
    "../photos/out",
    "../photos/train",
    "../photos/train/cat/0.png",
    "~nobody/x",
    "\x1b[2J",
    "x\nFORGED",
    "label-table:",
    "mimic-cxr-lt:..",
    "digit-scense",
    "-",
    "digits/",
    "/etc",
    "file:///x",
    "\udcff",
)


def apply(world, command, changes):
    "The plain command line with some options or arguments put in another way."
    arguments, plain = plain_commands(world)[command]
    arguments, plain = list(arguments), list(plain)
    for option, value in changes:
        if option.startswith("argument"):
            arguments[int(option.split()[1])] = value
        elif option in plain and not option.startswith("--no-") and option != "--quiet":
            plain[plain.index(option) + 1] = value
        else:
            plain += [option, value]
    return [command, *plain, "--", *arguments]


def where(world, line):
    "Where this line may write: its OUT."
    command = line[0]
    behind = line[line.index("--") + 1 :]
    out = {"augment": behind[-1], "suffixes": behind[-1], "report": behind[-1], "audit": behind[-1]}.get(
        command, line[line.index("--out") + 1] if "--out" in line else "genaug_tables"
    )
    safe = out.replace("\0", "")
    return (
        [safe]
        if command not in ("suffixes",)
        else [safe, safe.rpartition(".")[0] + ".captions.jsonl" if "." in safe else safe + ".captions.jsonl"]
    )


def is_json(text):
    "One JSON value, in ASCII."
    try:
        return text.isascii() and json.loads(text) is not None
    except ValueError:
        return False


def judge(world, command, changes, flags=()):
    for name in ("out", "out.txt", "genaug_tables", "genaug_compare"):
        wipe(world.cwd / name)
    line = apply(world, command, changes)
    line[1:1] = flags
    outcome = run_checked(world, line, out=where(world, line))
    if "--json" in flags and outcome.out.strip():
        expect(is_json(outcome.out), f"{line} --json prints no JSON: {outcome.out[:200]!r}")
    for item in world.cwd.iterdir():
        wipe(item)
    return outcome


# --- the claims
# ---------------------------------------------------------------------------


def test_every_command_has_a_plain_line(world):
    assert {command for command, _, _ in options()} == set(plain_commands(world))


@pytest.mark.parametrize("command", ["check", "augment", "compare", "suffixes", "report", "audit", "methods"])
def test_the_plain_line_of_a_command_is_answered_well(world, command):
    assert judge(world, command, []).code == 0


def known_values(option):
    return SETTABLE.get(option, PLACES if option.startswith("argument") else WORDS[:20])


ORDER = ("check", "augment", "suffixes", "compare", "report", "audit", "reproduce", "methods")
ONCE = tuple(
    {
        option if option.startswith("--") else f"{command} {option}": (command, option)
        for command, option in sorted(ASKED, key=lambda asked: -ORDER.index(asked[0]))
    }.values()
)


@pytest.mark.parametrize("command,option", ONCE)
def test_a_hostile_value_of_an_option_is_answered_in_a_sentence(world, command, option):
    for value in known_values(option)[:1]:
        judge(world, command, [(option, value)])


@examples(8)
@given(st.sampled_from(ASKED), st.one_of(odd_text, odd_number))
def test_any_value_of_any_option_is_answered_in_a_sentence(world, asked, value):
    judge(world, asked[0], [(asked[1], value)] if cheap(asked[1], value) else [])


def cheap(option, value):
    "Would a valid value of this size be honest work? Those are left out: only wrong or small ones are tried."
    if option in ("--copies", "--total", "--updates", "--repeats", "--seeds"):
        try:
            number = float(value.replace("_", ""))
        except ValueError:
            return (
                not any(character.isdigit() for character in value)
                or option in ("--copies", "--total", "--updates", "--repeats")
                or value in ("5-3", "3-9999999999", "0-1000000000000")
            )
        return not 3 < number < 1e8
    if option == "--suffixes" and value.startswith("/dev"):
        return value == "/dev/null"
    return not value.startswith(("/etc", "/dev/zero", "/dev/random"))


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "check",
                "augment",
                "compare",
                "report",
                "audit",
                "suffixes",
                "reproduce",
                "digits",
                "--help",
                "--quiet",
                "--",
                "-",
                "--out",
                "--method",
                "--copies",
                "--json",
                "--no-run",
            ]
        ),
        odd_text,
    ),
    max_size=6,
)


@examples(10)
@given(LINES)
def test_any_command_line_is_answered_in_a_sentence(world, line):
    any_line(world, line)


def any_line(world, line):
    if not {"augment", "compare"} & set(
        line
    ):  # with the methods that they take when none is named, they paint for minutes
        run_checked(world, line, out=[world.cwd])
        for item in world.cwd.iterdir():
            wipe(item)


@pytest.mark.long
@pytest.mark.parametrize("command,option", ONCE)
def test_all_hostile_values_of_an_option_are_answered_in_a_sentence(world, command, option):
    values = dict.fromkeys([*known_values(option), *WORDS[:30], *NUMBERS[::5]])
    for value in values:
        if value in known_values(option) or cheap(option, value):
            judge(world, command, [(option, value)])


@pytest.mark.parametrize(
    "command,changes",
    [
        ("check", []),
        ("check", [("argument 0", "no such\x1b")]),
        ("check", [("--min-size", "17")]),
        ("audit", []),
        ("augment", []),
        ("augment", [("--copies", "nan")]),
        ("compare", [("--condition", "validaton")]),
    ],
)
def test_with_json_a_command_prints_one_json_value_or_one_sentence(world, command, changes):
    judge(world, command, changes, ["--json"])


@pytest.mark.long
@examples(300)
@given(st.sampled_from(ASKED), st.one_of(odd_text, odd_number))
def test_many_values_of_any_option_are_answered_in_a_sentence(world, asked, value):
    judge(world, asked[0], [(asked[1], value)] if cheap(asked[1], value) else [])


@pytest.mark.long
@examples(200)
@given(st.data())
def test_many_pairs_of_values_are_answered_in_a_sentence(world, data):
    command = data.draw(st.sampled_from(["augment", "compare", "check", "suffixes"]))
    names = [option for item, option in ASKED if item == command]
    flags = data.draw(
        st.lists(
            st.sampled_from(
                [
                    option
                    for item, option, flag in options()
                    if item == command and flag and option not in ("--measure", "--quiet")
                ]
            ),
            max_size=2,
            unique=True,
        )
    )
    changes = [
        (option, data.draw(st.one_of(st.sampled_from(known_values(option)), odd_text)))
        for option in data.draw(st.lists(st.sampled_from(names), min_size=2, max_size=3, unique=True))
    ]
    judge(
        world,
        command,
        [
            (option, value)
            for option, value in changes
            if cheap(option, value) or value in known_values(option)
        ],
        flags,
    )


@pytest.mark.long
@examples(300)
@given(LINES)
def test_many_command_lines_are_answered_in_a_sentence(world, line):
    any_line(world, line)


# --- arms
# ---------------------------------------------------------------------------


def fields_of(name):
    "The settings that a method has, and some that it has not."
    import dataclasses

    method = next(item for item in methods() if item.name == name)
    made = method.build() if method.build else method.part() if method.part else None
    own = (
        [item.name for item in dataclasses.fields(made)]
        if made is not None and dataclasses.is_dataclass(made)
        else []
    )
    inner = (
        [
            f"{item.name}.{part.name}"
            for item in dataclasses.fields(made)
            if dataclasses.is_dataclass(getattr(made, item.name, None))
            for part in dataclasses.fields(getattr(made, item.name))
        ]
        if own
        else []
    )
    return [
        *own,
        *inner,
        "use",
        "replace",
        "weigh",
        "real_share",
        "copies",
        "even",
        "fill",
        "total",
        "tail",
        "heads",
        "naming",
        "name",
        "backbone",
        "class_prompt",
        "suffixes",
        "device",
        "no_such",
        "",
        "x.y",
        "a b",
        "é",
        "__class__",
    ]


FIELDS = {name: fields_of(name) for name in method_names()}
arm_values = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(
        [
            "true",
            "FALSE",
            "none",
            "None",
            "abc",
            "swap_class",
            "append",
            "banana",
            "tokens",
            "words",
            "0.1:0.2",
            "a:b:c",
            "::",
            ":1",
            "1:",
            "1::2",
            "()",
            "[1]",
            "{}",
            "'x'",
            '"x"',
            "b'x'",
            "1+1",
            "1 2",
            "1j",
            "0b1",
            "0o7",
            "1e",
            "e1",
            "--1",
            "~1",
            "not 1",
            "lambda: 0",
            "__import__('os')",
            "[" * 200,
            "(" * 300,
            "-" * 3000 + "1",
            "9" * 5000,
            "1_0",
            "١",
            "é",
            "\x1b",
            "\n",
            "\udcff",
            "<hostile>",
        ]
    ),
    st.floats().map(str),
    st.integers().map(str),
    st.text(max_size=6),
)


@st.composite
def part_texts(draw):
    "A name, perhaps with settings."
    name = draw(st.sampled_from([*method_names(), *method_names(), *ALIASES, *groups()]))
    fields = FIELDS.get(name, ["x"])
    settings = draw(st.lists(st.tuples(st.sampled_from(fields), arm_values), max_size=3))
    blank = draw(st.sampled_from(["", "", "", " ", "\t"]))
    return name + (
        "@" + ";".join(f"{blank}{key}{blank}={blank}{value}" for key, value in settings)
        if settings or draw(st.integers(0, 9)) == 0
        else ""
    )


@st.composite
def arm_texts(draw):
    "One to three arms, sometimes damaged."
    text = draw(st.sampled_from([",", ", ", ",,"])).join(
        draw(st.sampled_from(["+", " + ", "++"])).join(draw(st.lists(part_texts(), min_size=1, max_size=3)))
        for _ in range(draw(st.integers(1, 2)))
    )
    if draw(st.integers(0, 4)) == 0:
        index = draw(st.integers(0, len(text)))
        text = (
            text[:index]
            + draw(
                st.sampled_from(["@", ";", "=", "+", ",", ":", ".", " ", "\0", "\n", "é", "'", "(", "1e300"])
            )
            + text[index:]
        )
    return text


any_arms = st.one_of(arm_texts(), arm_texts(), odd_text)


def judge_arms(text):
    "What is accepted has one canonical text, which means the same arm."
    arms = call_checked(parse_methods, text, seconds=5).value
    for arm in arms or ():
        again = call_checked(parse_methods, arm, seconds=5)
        expect(
            again.value == [arm],
            f"{arm!r} is read as {again.value if again.value is not None else again.error!r}",
        )
        made = call_checked(make_arm, arm, seconds=10).value
        if made is not None:
            expect(
                make_arm(made.text).text == made.text, f"{made.text!r} has another name when it is made again"
            )


@examples(50)
@given(any_arms)
def test_any_arm_is_refused_or_has_a_canonical_text_that_means_itself(text):
    judge_arms(text)


@pytest.mark.long
@examples(3000)
@given(any_arms)
def test_many_arms_are_refused_or_have_a_canonical_text_that_means_itself(text):
    judge_arms(text)


@pytest.mark.parametrize(
    "arm",
    [
        "mixup@alpha=-1",
        "mixup@alpha=abc",
        "smote@neighbours=abc",
        "smote@use=foo",
        "smote@weigh=banana",
        "smote@replace=2",
        "smote@copies=abc",
        "real-gen@guidance_scale=abc",
        "real-gen@guidance_scale=nan",
        "real-gen@guidance_scale=inf",
        "real-gen@num_inference_steps=2.5",
        "real-guidance@strengths=abc",
        "real-guidance@strengths=1e300",
        "real-gen@use=foo",
        "smote@copies=nan",
        "smote@total=1e9",
        "smote@space=abc",
    ],
)
def test_an_arm_with_a_wrong_setting_is_refused_before_anything_is_made(world, arm):
    for command, option in (("augment", "--method"), ("compare", "--methods")):
        assert judge(world, command, [(option, arm if command == "augment" else f"original,{arm}")]).code == 2


@st.composite
def cheap_arms(draw):
    name = draw(st.sampled_from(["smote", "mixup", "cutmix"]))
    return f"{name}@{draw(st.sampled_from(FIELDS[name]))}={draw(arm_values)}"


@examples(3)
@given(cheap_arms())
def test_an_arm_with_any_setting_goes_through_a_comparison_or_is_refused_at_once(world, arm):
    cheap_comparison(world, arm)


def cheap_comparison(world, arm):
    if all(cheap("--copies", value.partition(";")[0]) for value in arm.split("=")[1:]):
        judge(world, "compare", [("--methods", f"original,{arm}")])


@pytest.mark.long
@examples(80)
@given(cheap_arms())
def test_many_arms_with_any_setting_go_through_a_comparison_or_are_refused_at_once(world, arm):
    cheap_comparison(world, arm)
