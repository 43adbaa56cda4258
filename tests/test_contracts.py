"""What a stranger may rely on: parts say what they offer, settings what they may be, and stored names stay.

`stored_names.json` holds every stored name of a class and of its fields. A class or a field may be
renamed: its identity then declares the old name. What is new is written with `python
tests/test_contracts.py`.
"""

import ast
import dataclasses
import importlib
import json
import pkgutil
import re
import typing
from pathlib import Path
from typing import Annotated, ClassVar

import pytest

import genaug
from genaug import cli
from genaug.choices import Filter, Finish, FromPhotograph, LabelRule, Naming, Prompting, Start, Target
from genaug.contracts import Part
from genaug.identity import Identified, Identity, identity_of, stored_kind
from genaug.recipe import Recipe
from genaug.registry import find_method, method_names
from genaug.schedule import USES, TrainingUse
from genaug.settings import Bound, declared
from genaug.training import LearningSettings

ROOT = Path(__file__).resolve().parent.parent
STORED = Path(__file__).with_name("stored_names.json")
MOST_PARAMETERS = 8
COMMANDS = {function.__name__ for _, function in cli.COMMANDS}  # a command has a parameter for each option

# Questions about objects of other libraries, or whatever a caller gave: (file, attribute) -> whose it is.
FOREIGN = {
    ("commands/terminal.py", "ctx"): "an error of click",
    ("commands/terminal.py", "format_message"): "an error of click",
    ("commands/terminal.py", "reconfigure"): "a stream of Python",
    ("concepts/attach.py", "text_model"): "a text encoder of transformers",
    ("concepts/concept.py", "text_model"): "a text encoder of transformers",
    ("decoding.py", "n_frames"): "a picture of Pillow",
    ("comparison.py", "__len__"): "whatever was given for a tuple",
    ("plan_file.py", "__name__"): "whatever a setting holds: a function or a class has a name",
    ("language_models.py", "max_position_embeddings"): "a configuration of transformers",
}

# Parameters that take anything: (file, parameter) -> why.
ANYTHING = {
    ("commands/compare.py", "asked"): "the options of a command as they were typed, each of its own type",
    ("commands/compare.py", "options"): "the options of a command as they were typed, each of its own type",
    ("commands/terminal.py", "arguments"): "what a reader of options refuses, of any type",
    ("commands/terminal.py", "text"): "a name, a path or a value for the terminal",
    ("settings.py", "annotation"): "a type as Python writes it: a class, a union, Annotated",
    ("settings.py", "current"): "the value of any setting",
    ("identity.py", "instance"): "any dataclass, and Python has no type for that",
    ("settings.py", "instance"): "any dataclass, and Python has no type for that",
    ("pictures.py", "item"): "what should be an image, checked here",
    ("core.py", "labels"): "what should be labels, checked here",
    ("contracts.py", "make"): "a function of any result",
    ("files.py", "more"): "further entries of a JSON object",
    ("contracts.py", "names"): "the names of a module",
    ("identity.py", "parts"): "what is hashed",
    ("core.py", "pixels"): "what should be pixels, checked here",
    ("core.py", "record"): "a line of a file, checked here",
    ("settings.py", "settings"): "values of any settings",
    ("identity.py", "value"): "what is hashed",
    ("plans.py", "value"): "a number of images, checked here",
    ("settings.py", "value"): "the value of any setting",
    ("datasets.py", "word"): "what should be a word, checked here",
    ("results.py", "lines"): "read from a file, checked here",
    ("experiment.py", "record"): "read from a file, checked here",
    ("comparison_folder.py", "record"): "read from a file, checked here",
    ("results.py", "value"): "read from a file, checked here",
    ("plan_file.py", "value"): "the value of any setting",
    ("choices.py", "value"): "one value or several of any setting",
    ("arm_findings.py", "more"): "further arguments, passed on",
    ("arms.py", "settings"): "values of any settings",
    ("arms.py", "value"): "the value of any setting",
    ("html_page.py", "text"): "anything with a text form",
    ("show.py", "text"): "anything with a text form",
}

CHOICES = {  # choice -> its base class and what each of its classes must write
    "naming": (Naming, ()),
    "start": (Start, ("latents", "plan_start")),
    "target": (Target, ("choose_target",)),
    "prompting": (Prompting, ("write_prompt",)),
    "label": (LabelRule, ("label_row",)),
    "filter": (Filter, ("select",)),
    "use": (TrainingUse, ("shown",)),
    "finish": (Finish, ("finish",)),
}
BASES = {"LearningSettings", "ConceptSettings"}  # no instance is stored: each of their subclasses has a kind
BY_NAME = {"Recipe"}  # its identity is a field, and without one it is stored under the name of the class


# What stands in the sources


@pytest.fixture(scope="module")
def sources():
    "File -> its tree."
    folder = ROOT / "genaug"
    return {
        path.relative_to(folder).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
        if path.name != "_modidx.py"
    }


def attribute_questions(tree):
    "(line, attribute) of each `hasattr`, and of each `getattr` of a fixed name or with a default."
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("hasattr", "getattr"):
            name = node.args[1] if len(node.args) > 1 else None
            fixed = isinstance(name, ast.Constant)
            if ast.unparse(node.func) == "hasattr" or fixed or len(node.args) > 2:
                yield node.lineno, name.value if fixed else "?"


def _mentions_object(annotation):
    "Is `object` part of an annotation, written as code or as text? A help text in it does not count."
    if annotation is None:
        return False
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _mentions_object(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).endswith("Annotated"):
        return _mentions_object(annotation.slice.elts[0])
    return any(
        isinstance(node, ast.Name)
        and node.id == "object"
        or isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and "object" in node.value
        for node in ast.walk(annotation)
    )


def object_fields(tree):
    "(line, field) of each field of a dataclass or named tuple whose type is, or holds, `object`."
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            marks = " ".join(map(ast.unparse, [*node.decorator_list, *node.bases]))
            if "dataclass" in marks or "NamedTuple" in marks:
                for field in node.body:
                    if isinstance(field, ast.AnnAssign) and _mentions_object(field.annotation):
                        yield field.lineno, ast.unparse(field.target)


def _parameters(function):
    "All parameters but `self`."
    actual = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [finding for finding in actual if finding.arg not in ("self", "cls")]


def object_parameters(tree):
    "(line, parameter) of each parameter whose type is, or holds, `object`."
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for parameter in [*_parameters(node), *filter(None, (node.args.vararg, node.args.kwarg))]:
                if _mentions_object(parameter.annotation):
                    yield parameter.lineno, parameter.arg


def long_signatures(tree, owner=""):
    "(line, function, parameters) of each public function or method with too many; commands are left out."
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from long_signatures(node, f"{node.name}.")
        public = isinstance(node, ast.FunctionDef) and (node.name == "__init__" or node.name[0] != "_")
        if public and owner + node.name not in COMMANDS and len(_parameters(node)) > MOST_PARAMETERS:
            yield node.lineno, owner + node.name, len(_parameters(node))


def old_marks(tree):
    "(line, mark) of what declared settings before: `metadata` of fields, and the class attribute `bounds`."
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "metadata" and "setting" in ast.unparse(node.value):
            yield node.value.lineno, "metadata"
        if isinstance(node, ast.Call) and ".metadata.get('setting'" in ast.unparse(node)[:80]:
            yield node.lineno, "metadata"
        if isinstance(node, ast.ClassDef):
            for line in node.body:
                targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
                if any(isinstance(target, ast.Name) and target.id == "bounds" for target in targets):
                    yield line.lineno, "bounds"


def _all(sources, check):
    return [(file, *item) for file, tree in sources.items() for item in check(tree)]


def test_no_contract_is_asked_for_by_name(sources):
    actual = _all(sources, attribute_questions)
    assert not [finding for finding in actual if (finding[0], finding[2]) not in FOREIGN]


def test_no_exception_is_out_of_date(sources):
    asked = {(file, name) for file, _, name in _all(sources, attribute_questions)}
    taken = {(file, name) for file, _, name in _all(sources, object_parameters)}
    assert not [*FOREIGN.keys() - asked, *ANYTHING.keys() - taken]


def test_no_field_holds_just_anything(sources):
    assert not _all(sources, object_fields)


def test_parameters_say_their_type(sources):
    assert not [item for item in _all(sources, object_parameters) if (item[0], item[2]) not in ANYTHING]


def test_no_function_takes_more_than_eight_parameters(sources):
    assert not _all(sources, long_signatures)


def test_settings_are_declared_in_one_way(sources):
    assert not _all(sources, old_marks)


def test_a_mark_of_the_old_form_is_refused():
    @dataclasses.dataclass
    class Marked(Part):
        later: float = dataclasses.field(default=0.5, metadata={"setting": "changed"})

    with pytest.raises(TypeError, match="declare it in the class's identity"):
        Marked()


# What the classes say


def _classes():
    "Every class that the package defines."
    names = [module.name for module in pkgutil.walk_packages(genaug.__path__, "genaug.")]
    modules = [importlib.import_module(name) for name in names]
    actual = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]
    return list(dict.fromkeys(actual))


def _identified():
    "The dataclasses of which instances are hashed or stored."
    return [
        kind
        for kind in _classes()
        if dataclasses.is_dataclass(kind)
        and any("identity" in vars(base) for base in kind.__mro__)
        and kind.__name__ not in BASES
        and not (issubclass(kind, Identified) and kind.__abstractmethods__)
    ]


def kind_of(kind):
    "The stored name that a class declares for itself; empty where it declares none."
    own = vars(kind).get("identity")
    if isinstance(own, Identity) and own.kind:
        return own.kind
    return vars(kind).get("word", "") if issubclass(kind, TrainingUse) else ""


def without_bound(kind):
    "The fields of a class that are numbers and have no declared bound."

    def inner(hint):
        return {part for item in typing.get_args(hint) for part in inner(item)} or {hint}

    fields = declared(kind).items()
    return [name for name, (hint, bound) in fields if bound is None and inner(hint) & {int, float}]


def stored_as(names, identity, own):
    "One entry of the table: what is stored, and what counts not always."
    to_stored = {field: identity.names.get(field, field) for field in names}
    later = {to_stored.get(name, name) for name in identity.later}
    never = {to_stored.get(name, name) for name in identity.never}
    return {
        "fields": sorted({*to_stored.values(), *identity.aliases} - never),
        "kind": own,
        "later": sorted(later - never),
    }


def table(kinds):
    "Stored name of a class -> its stored fields."
    own = {kind: kind_of(kind) or kind.__name__ for kind in kinds}
    assert len(set(own.values())) == len(own), f"one name twice: {sorted(own.values())}"
    names = {kind: [field.name for field in dataclasses.fields(kind)] for kind in kinds}
    return {own[kind]: stored_as(names[kind], identity_of(kind), own[kind]) for kind in kinds}


def stored_names():
    "All that is stored under names: classes, methods, and the records beside what was learned."
    methods, records = {}, {}
    for name in method_names():
        if find_method(name).build is not None:
            made = find_method(name).build()
            made = made.counted_as() if isinstance(made, Identified) else made
            methods[name] = stored_as(
                [field.name for field in dataclasses.fields(made)], made.own_identity(), stored_kind(made)
            )
    for kind in _identified():
        if issubclass(kind, LearningSettings):
            records[kind_of(kind)] = sorted(kind().record(whole=True))
    return {"classes": table(_identified()), "methods": methods, "records": records}


def differences(actual, expected, where=""):
    "Where two tables differ, in words."
    if isinstance(actual, dict) and isinstance(expected, dict):
        gone = [f"{where}{name} is gone" for name in expected if name not in actual]
        new = [f"{where}{name} is new" for name in actual if name not in expected]
        return (
            gone
            + new
            + [
                text
                for name in expected
                if name in actual
                for text in differences(actual[name], expected[name], f"{where}{name}: ")
            ]
        )
    return [] if actual == expected else [f"{where}{actual} in place of {expected}"]


def test_every_stored_class_declares_its_name():
    assert not [kind for kind in _identified() if not kind_of(kind) and kind.__name__ not in BY_NAME]


def test_stored_names_stay():
    assert differences(stored_names(), json.loads(STORED.read_text(encoding="utf-8"))) == []


def test_names_of_methods_are_stored_once():
    kinds = [entry["kind"] for entry in stored_names()["methods"].values()]
    assert len(set(kinds)) == len(kinds)


def test_every_number_among_the_settings_has_a_bound():
    parts = [kind for kind in _classes() if issubclass(kind, Part) and dataclasses.is_dataclass(kind)]
    assert len(parts) > 40
    assert not [(kind.__name__, without_bound(kind)) for kind in parts if without_bound(kind)]


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_asks_for_what_its_page_says(choice):
    base, must = CHOICES[choice]
    assert sorted(base.__abstractmethods__) == sorted(must)
    cells = json.loads((ROOT / "nbs/methods/00_choices.ipynb").read_text(encoding="utf-8"))["cells"]
    page = "\n".join("".join(cell["source"]) for cell in cells)
    assert re.search(rf"^\|[^|]*\| `{choice}` \| `{base.__name__}`", page, re.MULTILINE)


def test_methods_are_made_of_choices():
    made = [find_method(name).build() for name in method_names() if find_method(name).kind == "augmenter"]
    recipes = [method for method in made if isinstance(method, Recipe)]
    assert len(recipes) > 10
    for method in recipes:
        for choice, (base, _) in CHOICES.items():
            assert isinstance(vars(method)[choice], base), (method.name, choice)
    assert all(issubclass(use, TrainingUse) for use in USES.values())


# Each fault is seen

PLANTED = [
    (attribute_questions, "x = hasattr(mixer, 'describe')", "x = mixer.describe(3)"),
    (attribute_questions, "x = getattr(mixer, 'describe', None)", "x = getattr(mixer, name)"),
    (attribute_questions, "x = getattr(mixer, 'describe')", "x = mixer.describe"),
    (attribute_questions, "x = getattr(mixer, name, None)", "x = [getattr(mixer, name) for name in names]"),
    (object_fields, "@dataclass\nclass A:\n    x: object", "@dataclass\nclass A:\n    x: int"),
    (
        object_fields,
        "@dataclass(frozen=True)\nclass A:\n    x: tuple[object, ...] = ()",
        "class A:\n    x: object",
    ),
    (
        object_fields,
        "class A(typing.NamedTuple):\n    x: 'object | None'",
        "@dataclass\nclass A:\n    x: 'int'",
    ),
    (object_parameters, "def f(x: object): pass", "def f(x: typing.Any): pass"),
    (
        object_parameters,
        "def f(*, x: Mapping[str, object] = {}): pass",
        "def f(x: Annotated[bool, Option(help='an object')]): pass",
    ),
    (object_parameters, "def f(*x: object): pass", "def f(x): pass"),
    (long_signatures, "def f(a, b, c, d, e, *, f, g, h, i): pass", "def f(a, b, c, d, e, *, f, g, h): pass"),
    (
        long_signatures,
        "class A:\n    def f(self, a, b, c, d, e, f, g, h, i): pass",
        "class A:\n    def f(self, a, b, c, d, e, f, g, h): pass",
    ),
    (
        long_signatures,
        "class A:\n    def __init__(self, a, b, c, d, e, f, g, h, i): pass",
        "def augment(a, b, c, d, e, f, g, h, i): pass",
    ),
    (
        old_marks,
        "class A:\n    x: int = field(default=1, metadata={'setting': False})",
        "class A:\n    x: int = field(default=1)",
    ),
    (
        old_marks,
        "class A:\n    bounds: ClassVar = {'x': Bound(0)}",
        "class A:\n    x: Annotated[int, Bound(0)] = 1",
    ),
    (old_marks, "class A:\n    bounds = {'x': Bound(0)}", "bounds = {'x': Bound(0)}"),
    (old_marks, "x = [item.metadata.get('setting') for item in fields]", "x = picture.metadata.get('date')"),
]


@pytest.mark.parametrize("check, wrong, right", PLANTED)
def test_a_planted_fault_is_seen(check, wrong, right):
    assert list(check(ast.parse(wrong)))
    assert not list(check(ast.parse(right)))


def _like_from_photograph(name, field, **more):
    "A start with the fields of `FromPhotograph`, as it would be after a rename."
    fields = [(field, Annotated[tuple[float, ...], Bound(0, 1)], (0.1,)), ("every", bool, False)]
    return dataclasses.make_dataclass(name, fields, bases=(Part,), namespace=more, frozen=True)


@pytest.mark.parametrize(
    "name, field, identity, messages",
    [
        ("FromPhotograph", "strengths", None, []),
        ("FromPicture", "strengths", None, ["FromPhotograph is gone", "FromPicture is new"]),
        ("FromPicture", "strengths", Identity("FromPhotograph"), []),
        (
            "FromPicture",
            "sigmas",
            Identity("FromPhotograph"),
            ["FromPhotograph: fields: ['every', 'sigmas']"],
        ),
        ("FromPicture", "sigmas", Identity("FromPhotograph", {"sigmas": "strengths"}), []),
        (
            "FromPhotograph",
            "strengths",
            Identity(never=("every",)),
            ["FromPhotograph: fields: ['strengths']"],
        ),
        ("FromPhotograph", "strengths", Identity(later=("every",)), ["FromPhotograph: later: ['every']"]),
    ],
)
def test_a_rename_needs_the_old_name(name, field, identity, messages):
    renamed = _like_from_photograph(name, field, **({} if identity is None else {"identity": identity}))
    actual = differences(table([renamed]), table([FromPhotograph]))
    assert len(actual) == len(messages), actual
    assert all(text.startswith(start) for text, start in zip(actual, messages)), actual


def test_a_class_without_a_name_of_its_own_is_seen():
    class Child(FromPhotograph):
        pass

    assert kind_of(FromPhotograph) == "FromPhotograph"
    assert kind_of(Child) == ""
    with pytest.raises(AssertionError, match="one name twice"):
        table(
            [FromPhotograph, _like_from_photograph("Other", "strengths", identity=Identity("FromPhotograph"))]
        )


@pytest.mark.parametrize(
    "hint, seen",
    [
        (int, True),
        (float | None, True),
        (tuple[float, ...], True),
        (bool, False),
        (str, False),
        (Annotated[float, Bound(0)], False),
        (Annotated[tuple[int, ...] | None, Bound(0, 9)], False),
    ],
)
def test_a_number_without_a_bound_is_seen(hint, seen):
    kind = dataclasses.make_dataclass("Kind", [("x", hint, None), ("fixed", ClassVar[int], 3)])
    assert without_bound(kind) == (["x"] if seen else [])


if __name__ == "__main__":

    def lines(part):
        return ",\n".join(f"  {json.dumps(name)}: {json.dumps(part[name])}" for name in sorted(part))

    parts = [f"{json.dumps(name)}: {{\n{lines(part)}\n}}" for name, part in stored_names().items()]
    STORED.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    print(f"wrote {STORED}")
