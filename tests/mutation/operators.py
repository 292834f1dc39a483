"""Small ways to break a hardware description: changes of its syntax tree, one at a time.

Only what can break is changed: a register that is reset although it need not be is no fault, so ``reset_less=True`` stays.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

SWAPS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt,), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt,),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,),
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Add,), ast.FloorDiv: (ast.Mult,), ast.Mod: (ast.FloorDiv,),
    ast.LShift: (ast.RShift,), ast.RShift: (ast.LShift,),
    ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,), ast.BitXor: (ast.BitOr,),
    ast.And: (ast.Or,), ast.Or: (ast.And,),
}

CALLS = {"signed": "unsigned", "unsigned": "signed", "min": "max", "max": "min"}
"""Functions taken for each other."""

WIDTHS = {"signed", "unsigned", "Signal"}
"""Calls whose first argument is a width, made one too small."""

FAULTY_KEYWORDS = {"init"}
"""Arguments whose absence is a fault: a register that begins with 0."""

SILENT = {"name", "attrs", "reset_less"}
"""Arguments that are no hardware, or whose fault is dealt with by itself."""

UNWRAPPED = {"as_signed", "as_unsigned", "all", "any"}


@dataclass(frozen=True)
class Mutant:
    """One change of one function of a module."""

    function: str
    """Qualified name of the outermost function that holds the change."""

    line: int
    statement: int
    """First line of the statement that holds the change."""

    what: str
    tree: ast.Module = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """Names the mutant in tables and files."""
        return f"{self.line}: {self.what}"


def mutants(source: str) -> Iterator[Mutant]:
    """Every change of the functions in ``source``, in order of their lines; what reads alike in one line is numbered."""
    tree = ast.parse(source)
    seen: Counter[tuple[int, str]] = Counter()
    for path, function in functions(tree):
        for node, statement in _nodes(function):
            line = getattr(node, "lineno", statement)
            for what, change in changes(node):
                seen[line, what] += 1
                name = f"{what} ({seen[line, what]})" if seen[line, what] > 1 else what
                yield Mutant(path, line, statement, name, _changed(tree, node, change))


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Outermost functions and methods with their qualified names."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f"{node.name}.{inner.name}", inner


def _nodes(function: ast.FunctionDef) -> Iterator[tuple[ast.AST, int]]:
    """Nodes that may be changed, each with the line of its innermost statement."""
    pending: list[tuple[ast.AST, int]] = [(node, node.lineno) for node in reversed(function.body)]
    while pending:
        node, statement = pending.pop()
        if isinstance(node, ast.Assert | ast.Raise | ast.JoinedStr):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if isinstance(node, ast.stmt):
            statement = node.lineno
        yield node, statement
        children = [child for child in ast.iter_child_nodes(node)
                    if not (isinstance(child, ast.keyword) and child.arg in SILENT)]
        if isinstance(node, ast.FunctionDef):
            children = list(node.body)
        if isinstance(node, ast.AnnAssign):
            children = [node.value] if node.value else []
        pending += [(child, statement) for child in reversed(children)]


def _changed(tree: ast.Module, node: ast.AST, change: ast.AST | None) -> ast.Module:
    """A copy of ``tree`` with ``change`` in the place of ``node``."""
    memo: dict[int, object] = {}
    result = copy.deepcopy(tree, memo)
    place = memo[id(node)]
    new = change or ast.Pass()

    class Replace(ast.NodeTransformer):
        def visit(self, found: ast.AST) -> ast.AST:
            return ast.copy_location(new, found) if found is place else self.generic_visit(found)

    return ast.fix_missing_locations(Replace().visit(result))


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    """Ways to change ``node``: what it is called, and what stands in its place (None: nothing)."""
    match node:
        case ast.Compare(ops=[one], left=left, comparators=right):
            for other in SWAPS.get(type(one), ()):
                yield f"{sign(one)} becomes {sign(other())}", ast.Compare(left, [other()], right)
        case ast.BinOp(left=left, op=one, right=right):
            for other in SWAPS.get(type(one), ()):
                yield f"{sign(one)} becomes {sign(other())}", ast.BinOp(left, other(), right)
            if isinstance(one, ast.BitAnd):
                yield f"& {text(right)} dropped", left
                yield f"{text(left)} & dropped", right
        case ast.BoolOp(op=one, values=values):
            yield f"{sign(one)} becomes {sign(SWAPS[type(one)][0]())}", ast.BoolOp(SWAPS[type(one)][0](), values)
        case ast.UnaryOp(op=ast.Invert() | ast.Not() | ast.USub(), operand=operand):
            yield f"{text(node)} becomes {text(operand)}", operand
        case ast.Constant(value=bool(value)):
            yield f"{value} becomes {not value}", ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield f"{value} becomes {value + 1}", ast.Constant(value + 1)
            if value:
                yield f"{value} becomes {value - 1}", ast.Constant(value - 1)
        case ast.Slice():
            for end in ("lower", "upper"):
                bound = getattr(node, end)
                if bound is not None and not isinstance(bound, ast.Constant | ast.UnaryOp):
                    yield f"slice from {text(bound)} + 1" if end == "lower" else f"slice to {text(bound)} - 1", ast.Slice(
                        **{**{key: getattr(node, key) for key in ("lower", "upper", "step")},
                           end: _moved(bound, 1 if end == "lower" else -1)})
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield f"if {text(test)} turned round", ast.IfExp(test, orelse, body)
        case ast.If(test=test, body=body, orelse=orelse):
            yield f"if {text(test)} turned round", ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.With(items=[ast.withitem(context_expr=ast.Call(func=called, args=[condition]))], body=body):
            if isinstance(called, ast.Attribute) and called.attr in ("If", "Elif"):
                for value, word in ((1, "always"), (0, "never")):
                    call = ast.Call(called, [ast.Constant(value)], [])
                    yield f"{called.attr} {text(condition)} {word}", ast.With([ast.withitem(call)], body)
        case ast.AugAssign(target=target, value=ast.List(elts=elements)) if domain(target):
            for n, element in enumerate(elements):
                if len(elements) > 1:
                    rest = ast.List([*elements[:n], *elements[n + 1:]], ast.Load())
                    yield f"{domain(target)}: {text(element)} dropped", ast.AugAssign(target, node.op, rest)
        case ast.AugAssign(target=target, value=value) if domain(target):
            yield f"{domain(target)}: {text(value)} dropped", None
        case ast.Call():
            yield from _calls(node)
        case ast.Subscript(value=ast.Name(), slice=ast.Name()):
            index = ast.BinOp(node.slice, ast.Sub(), ast.Constant(1))
            yield f"{text(node)} becomes {text(node.value)}[{text(node.slice)} - 1]", ast.Subscript(
                node.value, index, node.ctx)


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST | None]]:
    """Changes of a call."""
    called = node.func.id if isinstance(node.func, ast.Name) else ""
    if called == "Mux" and len(node.args) == 3:
        test, yes, no = node.args
        yield f"{text(node)}: choices swapped", ast.Call(node.func, [test, no, yes], [])
    if called == "Cat" and len(node.args) == 2 and not isinstance(node.args[1], ast.Starred):
        yield f"{text(node)}: order swapped", ast.Call(node.func, node.args[::-1], [])
    if called == "range" and len(node.args) == 1:
        yield f"{text(node)} one shorter", ast.Call(node.func, [_moved(node.args[0], -1)], [])
    if called in CALLS and node.args:
        yield f"{called} becomes {CALLS[called]}", ast.Call(ast.Name(CALLS[called], ast.Load()), node.args, node.keywords)
    if called in WIDTHS and node.args and not isinstance(node.args[0], ast.Constant | ast.Call):
        yield f"{text(node.args[0])} one narrower", ast.Call(node.func, [_moved(node.args[0], -1), *node.args[1:]],
                                                             node.keywords)
    if isinstance(node.func, ast.Attribute) and node.func.attr in UNWRAPPED and not node.args:
        yield f".{node.func.attr}() dropped", node.func.value
    for keyword in node.keywords:
        if keyword.arg in FAULTY_KEYWORDS:
            rest = [other for other in node.keywords if other is not keyword]
            yield f"{keyword.arg}={text(keyword.value)} dropped", ast.Call(node.func, node.args, rest)
        if keyword.arg == "reset_less" and isinstance(keyword.value, ast.Constant) and not keyword.value.value:
            rest = [other for other in node.keywords if other is not keyword]
            yield "reset dropped", ast.Call(node.func, node.args, [*rest, ast.keyword("reset_less", ast.Constant(True))])


def _moved(value: ast.expr, by: int) -> ast.expr:
    return ast.BinOp(value, ast.Add() if by > 0 else ast.Sub(), ast.Constant(1))


def domain(target: ast.AST) -> str:
    """``sync`` of ``m.d.sync``; empty if it is something else."""
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Attribute) and target.value.attr == "d":
        return target.attr
    return ""


SIGNS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.Add: "+", ast.Sub: "-",
         ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%", ast.LShift: "<<", ast.RShift: ">>", ast.BitAnd: "&",
         ast.BitOr: "|", ast.BitXor: "^", ast.And: "and", ast.Or: "or"}


def sign(operator: ast.AST) -> str:
    """An operator as it is written."""
    return SIGNS[type(operator)]


def text(node: ast.AST) -> str:
    """A node as it is written, in short."""
    written = " ".join(ast.unparse(node).split())
    return written if len(written) <= 50 else written[:47] + "..."
