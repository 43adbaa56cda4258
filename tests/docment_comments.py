"""What stands behind the parameters and fields of a source text, by the rule of fastcore's docments.

It is the comment on the line where a parameter begins, or else the comment lines above it."""

import ast
import io
import tokenize

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def parameter_lines(node):
    "Line -> name of the parameters and the return value of a function, or of the fields of a dataclass."
    if isinstance(node, ast.ClassDef):
        return {field.lineno: field.target.id for field in node.body if isinstance(field, ast.AnnAssign)}
    several = [node.args.vararg] if node.args.vararg else []
    arguments = [*node.args.args, *several, *node.args.kwonlyargs]
    lines = {argument.lineno: argument.arg for argument in arguments}
    return lines | ({node.returns.lineno: "return"} if node.returns else {})


def is_documented(node):
    "Whether docments reads it: a function, or a dataclass."
    decorators = getattr(node, "decorator_list", ())
    is_data = any("dataclass" in ast.unparse(decorator) for decorator in decorators)
    return isinstance(node, FUNCTIONS) or (isinstance(node, ast.ClassDef) and is_data)


def definitions(tree, prefix=""):
    "Every function, method and dataclass, with its name."
    for node in tree.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            if is_documented(node):
                yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node, f"{prefix}{node.name}.")


def comment_at(line, comments, parameters):
    "The comment of the parameter that begins on a line."
    if line in comments:
        return comments[line]
    above = []
    while line - 1 in comments and line - 1 not in parameters:
        line -= 1
        above.insert(0, comments[line])
    return " ".join(above)


def comments_of(text):
    "`function(parameter)` -> its comment."
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    every = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    actual = {}
    for name, node in definitions(ast.parse(text)):
        own = {line: words.lstrip("# ") for line, words in every.items() if line >= node.lineno}
        parameters = parameter_lines(node)
        for line, parameter in parameters.items():
            if comment := comment_at(line, own, parameters):
                actual[f"{name}({parameter})"] = comment
    return actual


def lost_comments(before, after):
    "The parameters whose comment is another in the second text, in order."
    there = comments_of(after)
    return [name for name, comment in comments_of(before).items() if there.get(name) != comment]
