"""A small world for fuzzing: photographs, a home, a current folder; every call into it is watched for what it
prints, writes, takes and leaves behind.

`run_checked` runs one command in this process; `call_checked` calls one function of the library. Both fail
with all complaints at once. With GENAUG_FUZZ_COLLECT=FILE the complaints are written to the file as JSON
lines instead, so that one run lists everything that is wrong."""

import contextlib
import hashlib
import html.parser
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import stat
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import matplotlib.font_manager  # noqa: F401  it stores a list of fonts below HOME when it is first imported
import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from PIL import Image

import genaug.cli
from genaug.messages import GenaugError

SECONDS, MEGABYTES = 20.0, 600  # of one call: processor time, and memory beyond what there was
PATIENCE = 6  # times as long may pass on the clock of a busy machine
COMMON = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
    "print_blob": False,
}
settings.register_profile("genaug", max_examples=20, **COMMON)
settings.load_profile("genaug")


def examples(count):
    """Settings of one property: always the same examples, nothing stored, no deadline (time is bounded per
    call)."""
    phases = (
        (Phase.explicit, Phase.generate)
        if os.environ.get("GENAUG_FUZZ_COLLECT")
        else (Phase.explicit, Phase.generate, Phase.shrink)
    )
    return settings(settings.get_profile("genaug"), max_examples=count, phases=phases)


# --- watching
# ---------------------------------------------------------------------------


class TooLong(BaseException):
    "Raised by the alarm; no `except Exception` holds it back."


class Screen(io.TextIOWrapper):
    "A terminal as strict as a real one: UTF-8 and nothing else, and click strips nothing."

    def __init__(self, terminal):
        super().__init__(
            io.BytesIO(),
            encoding="utf-8",
            errors="strict" if terminal else "backslashreplace",
            newline="",
            write_through=True,
        )
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    def shown(self):
        return self.buffer.getvalue().decode("utf-8")


def _status(key):
    for line in (
        Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else ()
    ):
        if line.startswith(key + ":"):
            return int(line.split()[1]) // 1024
    return 0


def _reset_peak():
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@contextlib.contextmanager
def bounded(seconds=SECONDS, more_megabytes=3000):
    """Alarms for processor time and for time, and a limit of address space that keeps the machine alive; what
    was set before is restored."""

    def ring(number, frame):
        raise TooLong

    handlers = {number: signal.signal(number, ring) for number in (signal.SIGPROF, signal.SIGALRM)}
    limits, started = resource.getrlimit(resource.RLIMIT_AS), time.monotonic()
    waiting, _ = signal.setitimer(signal.ITIMER_REAL, PATIENCE * seconds)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    if size := _status("VmSize"):
        resource.setrlimit(resource.RLIMIT_AS, ((size + more_megabytes) * 2**20, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if waiting:
            signal.setitimer(signal.ITIMER_REAL, max(0.01, waiting - (time.monotonic() - started)))


def snapshot(root):
    "What a tree holds: per path its kind and, for files and links, a hash of the content."
    actual = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        folders[:] = [name for name in folders if not name.startswith(b"torchinductor_")]  # a cache of torch
        for name in [
            *folders,
            *(name for name in files if not (name.startswith(b"genaug-") and name.endswith(b".lock"))),
        ]:  # locks in the folder for temporary files
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                actual[path] = "link " + os.fsdecode(os.readlink(path))
            elif stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    actual[path] = hashlib.sha1(file.read()).hexdigest()
            else:
                actual[path] = "folder" if stat.S_ISDIR(mode) else "other"
    return actual


def differences(before, after):
    return sorted(
        os.fsdecode(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    )


def innermost(error):
    "File and function of ours where an error came from."
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if f"{os.sep}genaug{os.sep}" in frame.filename
    ]
    return f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "outside genaug"


@dataclass
class Outcome:
    "What one call did."

    code: int | None = None
    out: str = ""
    err: str = ""
    seconds: float = 0.0
    megabytes: int = 0
    error: BaseException | None = None  # what lay behind exit code 1, or what a function raised
    value: object = None


def fail(kind, what, outcome, complaints):
    "Report the complaints: as one AssertionError, or into the collecting file."
    if not complaints:
        return
    shown = str(what)[:600]
    if target := os.environ.get("GENAUG_FUZZ_COLLECT"):
        where = innermost(outcome.error) if outcome.error is not None else ""
        record = {
            "kind": kind,
            "what": shown,
            "complaints": [text[:400] for text in complaints],
            "error": type(outcome.error).__name__ if outcome.error is not None else "",
            "where": where,
            "text": str(outcome.error)[:200],
            "test": os.environ.get("PYTEST_CURRENT_TEST", ""),
        }
        with open(target, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(record) + "\n")
        return
    raise AssertionError(
        f"{kind} {shown}: "
        + "; ".join(complaints)
        + (
            f"\n{''.join(traceback.format_exception(outcome.error))[-3000:]}"
            if outcome.error is not None
            else ""
        )
    )


def expect(holds, what):
    "A claim about what came out; like `fail`, it is collected where all complaints are."
    if not holds:
        fail("claim", what, Outcome(), [str(what)[:300]])


def refuse_network(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        raise ConnectionRefusedError(111, "Connection refused")
    return CONNECT(self, address)


CONNECT = socket.socket.connect


def watched(function, seconds=SECONDS):
    "Call a function under watch; errors are kept, not raised."
    outcome, screens = Outcome(), (Screen(True), Screen(False))
    _reset_peak()
    base, started = _status("VmRSS"), time.process_time()
    with (
        mock.patch.object(socket.socket, "connect", refuse_network),
        contextlib.redirect_stdout(screens[0]),
        contextlib.redirect_stderr(screens[1]),
    ):
        try:
            with bounded(seconds):
                outcome.value = function()
        except (Exception, TooLong, SystemExit) as error:
            outcome.error = error
    outcome.seconds, outcome.megabytes = time.process_time() - started, _status("VmHWM") - base
    outcome.out, outcome.err = (screen.shown() for screen in screens)
    return outcome


def resources(outcome, seconds, megabytes):
    complaints = (
        [f"took over {seconds:g} s"]
        if isinstance(outcome.error, TooLong) or outcome.seconds > seconds + 5
        else []
    )
    return complaints + ([f"took {outcome.megabytes} MB more"] if outcome.megabytes > megabytes else [])


def unprintable(text):
    return sorted({character for character in text if not character.isprintable() and character != "\n"})


def judge_text(outcome, found_nothing_said=False):
    "What is wrong with what was printed."
    both, complaints = outcome.out + outcome.err, []
    for words in ("Fault of the program", "Traceback (most recent", "Warning:", "memory does not suffice"):
        if words in both:
            complaints.append(f"says '{words}': {both[both.index(words) :][:200]!r}")
    if bad := unprintable(both):
        complaints.append(f"prints the characters {bad[:5]!r}")
    if re.search(r"^\s*FORGED", both, re.MULTILINE):
        complaints.append("a name begins a line of its own")
    lines = [line for line in outcome.err.splitlines() if line.strip()]
    if (
        outcome.code == 2
        and not found_nothing_said
        and (len(lines) != 1 or not lines[0].startswith("genaug: "))
    ):
        complaints.append(f"not one sentence on stderr but {lines[:3]!r}")
    if outcome.code == 0 and lines:
        complaints.append(f"exit 0 with text on stderr: {lines[:2]!r}")
    return complaints


def nameable(path):
    "Whether a file of this name can exist: no zero byte, and characters that the file system can encode."
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def named_files(arguments):
    "Files that an option asks to be written, beside OUT."
    words = [str(argument) for argument in arguments]
    words = words[: words.index("--")] if "--" in words else words
    return [words[index + 1] for index, word in enumerate(words[:-1]) if word == "--write-names"]


def run_checked(world, arguments, out=(), leaves_nothing=True, seconds=SECONDS, megabytes=MEGABYTES):
    """Run `genaug ARGUMENTS` in this process and check all that must hold for any input; `out` are the places
    it may write to."""
    allowed = [*([out] if isinstance(out, (str, Path)) else out), *named_files(arguments)]
    places = [os.path.realpath(os.path.join(world.cwd, path)) for path in allowed if nameable(path)]
    behind, explain = [], genaug.cli.explain

    def noted(error):
        behind.append(error)
        return explain(error)

    before = snapshot(world.root)
    with mock.patch.object(genaug.cli, "explain", noted):
        outcome = watched(lambda: genaug.cli.run([str(argument) for argument in arguments]), seconds)
    outcome.code, raised = outcome.value, outcome.error
    if outcome.code not in (0, 2) and outcome.error is None and behind:
        outcome.error = behind[-1]
    findings = (
        arguments
        and arguments[0] in ("check", "audit")
        and bool(re.search(r"error|LEAK|\"severity\"", outcome.out))
    )
    complaints = resources(outcome, seconds, megabytes) + judge_text(outcome, findings)
    if raised is not None and not isinstance(raised, TooLong):
        complaints.append(f"raises {type(raised).__name__}")
    elif outcome.code not in (0, 2) and raised is None:
        complaints.append(f"exit code {outcome.code}")
    changed = differences(before, snapshot(world.root))

    def inside(path):
        return any(
            os.path.realpath(path) == index
            or os.path.realpath(path).startswith(index.rstrip(os.sep) + os.sep)
            for index in places
        )

    def above(path):
        return any(
            index.startswith(os.path.realpath(path) + os.sep) for index in places
        )  # parents that were made

    outside = [path for path in changed if not inside(path) and not (outcome.code == 0 and above(path))]
    if outside:
        complaints.append(f"changes outside OUT: {outside[:3]!r}")
    if leaves_nothing and outcome.code == 2 and changed:
        complaints.append(
            f"refused, but left {[os.path.relpath(path, world.root) for path in changed[:3]]!r}"
        )
    fail("genaug", [str(argument) for argument in arguments], outcome, complaints)
    return outcome


def call_checked(function, *arguments, seconds=SECONDS, megabytes=MEGABYTES, allowed=(GenaugError,), **named):
    """Call a function of the library: it returns, or raises `GenaugError` in one sentence; `None` where it
    refuses."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        outcome = watched(lambda: function(*arguments, **named), seconds)
    complaints = resources(outcome, seconds, megabytes) + judge_text(outcome)
    complaints += [
        f"warns instead of finding: {str(item.message)[:150]}"
        for item in heard
        if f"{os.sep}site-packages{os.sep}" not in item.filename and issubclass(item.category, UserWarning)
    ][:1]
    if outcome.error is not None and not isinstance(outcome.error, (*allowed, TooLong)):
        complaints.append(f"raises {type(outcome.error).__name__}: {str(outcome.error)[:150]}")
    if isinstance(outcome.error, GenaugError) and not str(outcome.error).strip():
        complaints.append("an empty sentence")
    name = getattr(function, "__qualname__", str(function))
    fail(
        "library",
        f"{name}{tuple(str(argument)[:120] for argument in arguments)} {named or ''}",
        outcome,
        complaints,
    )
    return outcome


class _Page(html.parser.HTMLParser):
    "Collects what a page must not have."

    allowed = (
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "footer",
        "section",
        "article",
        "div",
        "span",
        "p",
        "br",
        "h1",
        "h2",
        "h3",
        "h4",
        "ul",
        "ol",
        "li",
        "details",
        "summary",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "img",
        "figure",
        "figcaption",
        "code",
        "pre",
        "em",
        "strong",
        "b",
        "i",
        "small",
        "sub",
        "sup",
        "a",
        "nav",
        "caption",
        "hr",
        "svg",
        "g",
        "path",
        "rect",
        "text",
        "line",
        "circle",
        "use",
        "defs",
        "clippath",
        "tspan",
        "polygon",
        "polyline",
        "metadata",
        "rdf:rdf",
        "cc:work",
        "dc:type",
        "dc:date",
        "dc:format",
        "dc:creator",
        "cc:agent",
        "dc:title",
        "image",
        "symbol",
        "ellipse",
        "lineargradient",
        "stop",
    )

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.wrong = []

    def handle_starttag(self, tag, attributes):
        if tag not in self.allowed:
            self.wrong.append(f"<{tag}>")
        for name, value in attributes:
            value = value or ""
            foreign = name in ("src", "href", "xlink:href") and not value.startswith(("data:image/", "#"))
            if name.startswith("on") or foreign or "javascript:" in value.lower():
                self.wrong.append(f"<{tag} {name}={value[:40]!r}>")

    def handle_pi(self, data):
        self.wrong.append(f"<?{data[:40]}") if not data.startswith("xml") else None


def page_faults(path):
    "What is wrong with a report: foreign tags, scripts, addresses, control characters."
    text, page = Path(path).read_bytes().decode("utf-8", "surrogatepass"), _Page()
    page.feed(text)
    page.close()
    odd = sorted(
        {
            character
            for character in text
            if ord(character) < 32 and character not in "\n\t\r" or 0xD800 <= ord(character) < 0xE000
        }
    )
    return page.wrong[:5] + ([f"characters {odd[:5]!r}"] if odd else [])


def expect_clean_page(path):
    "The report has nothing that a browser would run or fetch."
    faults = page_faults(path)
    expect(not faults, f"the page shows {faults}")


# --- the world
# ---------------------------------------------------------------------------


@dataclass
class World:
    "Folders of one fuzzed world, all below `root`."

    root: Path

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self.root / name

    def fresh(self, name="work"):
        "An empty folder below the world; what was there is removed."
        folder = self.root / name
        wipe(folder)
        folder.mkdir()
        return folder

    def copy_of(self, name, target="work"):
        "A copy of a folder of the world under another name, whatever was there before."
        wipe(self.root / target)
        shutil.copytree(self.root / name, self.root / target, symlinks=True)
        return self.root / target


def wipe(folder):
    folder = Path(folder)
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(os.fsencode(folder))


def draw_photographs(folder, classes=("cat", "dog"), train=3, test=2, size=16, seed=0):
    "Plain pictures, one folder per class, in train and test."
    draw = np.random.default_rng(seed)
    for part, count in (("train", train), ("test", test)):
        for index, name in enumerate(classes):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                array = (40 + 80 * index + draw.integers(0, 60, (size, size, 3))).astype(np.uint8)
                Image.fromarray(array).save(folder / part / name / f"{number}.png")
    return folder


@contextlib.contextmanager
def small_world(root):
    """A world below `root` whose home and current folder are watched; the process goes back to its own
    afterwards."""
    world, before = World(Path(root).resolve()), os.getcwd()
    for name in ("home", "cwd", "tmp"):
        (world.root / name).mkdir()
    draw_photographs(world.photos)
    changed = {"HOME": str(world.home), "TMPDIR": str(world.tmp), "GENAUG_DEBUG": "", "COLUMNS": "200"}
    with mock.patch.dict(os.environ, changed), mock.patch.object(tempfile, "tempdir", str(world.tmp)):
        os.chdir(world.cwd)
        try:
            yield world
        finally:
            os.chdir(before)


# --- hostile values
# ---------------------------------------------------------------------------

QUICK = (  # the smallest comparison
    "--shots 1 --seeds 1 --repeats 1 --updates 1 --classifier-weights random --copies 1 --no-measure --quiet"
).split()
NUMBERS = (
    "0",
    "1",
    "2",
    "-1",
    "-0",
    "+1",
    "01",
    "1.0",
    "1.5",
    "0.1",
    ".5",
    "5.",
    "1e0",
    "1e9",
    "1e-9",
    "1e300",
    "1e400",
    "-1e400",
    "1E5",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "infinity",
    "1_000",
    "0x10",
    "0b1",
    "1j",
    "1,5",
    "١",
    "２",
    "²",
    "½",
    "Ⅷ",
    "𝟙",
    "1 ",
    " 1",
    "1\n",
    "9" * 30,
    "9" * 5000,
    "-" + "9" * 30,
    "1e" + "9" * 20,
    "0." + "0" * 400 + "1",
    "None",
    "none",
    "True",
    "true",
    "null",
    "[]",
    "()",
    "1:2",
    "1:",
    ":",
    "1;2",
    "1-",
    "-",
    "5-3",
    "0-1000000000000",
    "3-9999999999",
    "0,0,0",
    ",",
    "0,",
    "0,-1",
    "1-2-3",
    "0-0",
)
WORDS = (
    "",
    " ",
    "\t",
    "\n",
    "\0",
    "a\0b",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "a\rb",
    "x\nFORGED line",
    "\u202eabc",
    "\u200b",
    "\ufeff",
    "\udcff",
    "é",
    "é",
    "ñ" * 300,
    "a" * 5000,
    "😀",
    "漢字",
    "ﷺ" * 50,
    "%s%n{}",
    "{0}",
    "{x.__class__}",
    "$HOME",
    "`id`",
    "$(id)",
    "; rm -rf x",
    "| cat",
    "&& id",
    "'",
    '"',
    "\\",
    "\\\\server\\share",
    "<script>alert(1)</script>",
    "<hostile>",
    "&lt;",
    "'><img src=x onerror=alert(1)>",
    "=1+1",
    "@SUM(A1)",
    "-",
    "--",
    "-x",
    "--help",
    "CON",
    "nul",
    "a/b",
    "../x",
    "..",
    ".",
    "/",
    "//",
    "~",
    "~/x",
    "~nobody/x",
    "file:///etc/passwd",
    "http://127.0.0.1:1/x",
    "https://localhost:1",
    "ftp://x",
    "s3://b/k",
    "label-table:",
    "label-table:nowhere",
    "mimic-cxr-lt:..",
    "cub:/x",
    ":",
    "::",
    "x:y",
    "tiny",
    "digits",
    "cpu",
    "cuda",
    "cuda:99",
    "cuda:-1",
    "cuda:x",
    "mps",
    "meta",
    "xla",
    "cpu:7",
    "test",
    "train",
    "val",
    "natural",
    "validaton",
    "correlated",
    "validation",
    "letters",
    "resnet0",
    "random",
    "published:",
    "published:x",
    "none",
    "all",
    "original",
    "mixup",
    "smote",
    "smote+mixup",
    "a+b",
    "smote@",
    "smote@x=",
    "smote@neighbours=0",
    "+",
    "@",
    ",",
    ";",
    "=",
)
MARKERS = (
    "<hostile>",
    "</td><hostile>",
    '\'"><hostile a="',
    "&<hostile>",
    "x\nFORGED",
    "\x1b[2J",
    "\u202e",
    "\u2028",
    "\ud83d\ude00 \ud800",
    "{{7*7}}",
    "]]><hostile>",
    "--><hostile>",
    "</style><hostile>",
    "javascript:x",
    "\0",
    "=HYPERLINK(1)",
)

odd_text = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(NUMBERS),
    st.sampled_from(MARKERS),
    st.text(max_size=30),
    st.text(st.characters(categories=("Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Mn")), min_size=1, max_size=8),
    st.text(min_size=1, max_size=3).map(lambda text: text * 400),
)
odd_number = st.one_of(
    st.sampled_from(NUMBERS),
    st.integers().map(str),
    st.floats().map(str),
    st.integers(-(10**25), 10**25).map(str),
)


def hostile_json():
    "Values of every type and size that JSON (as Python reads it) can hold."
    leaf = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.sampled_from([10**400, -(10**30), 2**63, 1e308, -1e308, float("nan"), float("inf"), 0.5]),
        st.floats(),
        st.sampled_from(WORDS),
        st.sampled_from(MARKERS),
        st.text(max_size=10),
        st.sampled_from(["x" * 100_000, "../../outside.png", "/etc/passwd", "digits", "cat", "nothing"]),
    )
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(
                st.sampled_from(["id", "label", "file_name", "x", ""]) | st.text(max_size=5),
                inner,
                max_size=4,
            ),
        ),
        max_leaves=6,
    )
