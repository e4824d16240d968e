# SPDX-License-Identifier: MIT
"""The cases of a guest test program, read from its source: nothing is compiled, imported or run.

In C a case is `HGM_CASE(name, "claim", .deadline_s = 30) { ... }`, in Python a function under
`@hgm.case("claim", deadline_s=30)`; `STOCK_CASE` and `@hgm.stock_case` mark what holds without HGM too.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from harness.arch import ARCHES, Arch, size_name
from harness.errors import BadInput
from harness.paths import GUEST_TESTS

DEADLINE_S = 60
STRESS = "stress"  # the category that runs for a time of the user's choice, and only if asked for
ATTRIBUTES = {"deadline_s": int, "sizes": str, "arch": str, "spoils": int}

DECORATORS = ("hgm.case", "hgm.stock_case")

# The macros, wherever they are used; comments, literals and their own definitions are passed over.
_C_CASE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'"""
    r"""|\#[ \t]*define[ \t]+(?:HGM|STOCK)_CASE\b(?:[^\\\n]|\\.)*|\b(HGM|STOCK)_CASE\s*\(""",
    re.DOTALL,
)
_C_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<word>[A-Za-z_]\w*)|(?P<number>\d+)|(?P<sign>[(),.={;])|//[^\n]*|/\*.*?\*/)""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case as its source declares it."""

    program: Path
    line: int
    name: str
    claim: str  # what it shows and the fact it stands on
    needs_hgm: bool
    deadline_s: int = DEADLINE_S  # seconds on an accelerator of slowness 1
    sizes: tuple[str, ...] = ()  # names of the huge page sizes it is about; empty: all
    arch: str = ""  # the one architecture it is about; empty: all
    spoils: bool = False  # it takes huge pages for good (poison): no other case follows it in the same guest

    @property
    def category(self) -> str:
        """The directory of its program: splitting, collapsing, mapcount, fork, vmemmap, compat or stress."""
        return self.program.parent.name

    def sizes_on(self, arch: Arch) -> list[int]:
        """The huge page sizes of `arch`, in bytes, that the case runs at; none if it is about another architecture."""
        if self.arch not in ("", arch.name):
            return []
        return [size for size in arch.huge_page_sizes if not self.sizes or size_name(size) in self.sizes]


def known_cases() -> list[Case]:
    """Return every case of guest_tests, by the order of their programs. Raises BadInput as `find` does."""
    files = (path for path in sorted(GUEST_TESTS.rglob("*")) if path.suffix in (".c", ".py"))
    programs = (path for path in files if "lib" not in path.relative_to(GUEST_TESTS).parts)
    return [case for program in programs for case in find(program)]


def find(program: Path) -> list[Case]:
    """Return the cases of one program, in source order; none if the file declares none.

    Raises BadInput, with file and line, for a declaration that cannot be read, would never run or stands where none is
    read, and for a name used twice.
    """
    text = program.read_text()
    cases = _in_c(program, text) if program.suffix == ".c" else _in_python(program, text)
    seen: set[str] = set()
    for case in cases:
        if case.name in seen:
            raise BadInput(f"{program}:{case.line}: a second case is called {case.name}")
        seen.add(case.name)
    return cases


def _in_c(program: Path, text: str) -> list[Case]:
    return [_c_case(program, text, match) for match in _C_CASE.finditer(text) if match[1]]


def _c_case(program: Path, text: str, start: re.Match[str]) -> Case:
    line = text.count("\n", 0, start.start()) + 1
    if start.start() and text[start.start() - 1] != "\n":
        hint = "it begins a line, and no macro stands for it: cases are read from the source as it is"
        raise BadInput(f"{program}:{line}: {start[1]}_CASE is not read as a case here", hint=hint)
    tokens = _c_arguments(text, start.end(), f"{program}:{line}")
    fields: list[list[tuple[str, str]]] = [[]]
    for token in tokens:
        if token == ("sign", ","):
            fields.append([])
        else:
            fields[-1].append(token)
    where = f"{program}:{line}"
    if len(fields) < 2 or len(fields[0]) != 1 or fields[0][0][0] != "word" or any(k != "string" for k, _ in fields[1]):
        raise BadInput(f'{where}: a case is {start[1]}_CASE(name, "claim", .attribute = literal ...)')
    attributes: dict[str, object] = {}
    for field in (field for field in fields[2:] if field):
        kinds = [kind for kind, _ in field]
        if kinds not in (["sign", "word", "sign", "string"], ["sign", "word", "sign", "number"]):
            raise BadInput(f"{where}: an attribute is .name = literal, not {' '.join(v for _, v in field)!r}")
        attributes[field[1][1]] = ast.literal_eval(field[3][1])
    claim = "".join(str(ast.literal_eval(value)) for _, value in fields[1])
    return _case(program, line, fields[0][0][1], claim, start[1] == "HGM", attributes)


def _c_arguments(text: str, position: int, where: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    while match := _C_TOKEN.match(text, position):
        position = match.end()
        if match.lastgroup is None:
            continue  # a comment
        token = match.lastgroup, match[match.lastgroup]
        if token == ("sign", ")"):
            return tokens
        tokens.append(token)
    raise BadInput(f"{where}: this case's declaration does not end, or holds more than literals")


def _in_python(program: Path, text: str) -> list[Case]:
    try:
        tree = ast.parse(text, filename=str(program))
    except SyntaxError as error:
        raise BadInput(f"{program}:{error.lineno}: {error.msg}") from error
    cases = []
    for function in ast.walk(tree):
        for decorator in getattr(function, "decorator_list", ()):
            call = decorator if isinstance(decorator, ast.Call) else None
            name = ast.unparse(call.func if call else decorator)
            if call and name in DECORATORS and isinstance(function, ast.FunctionDef) and function in tree.body:
                cases.append(_python_case(program, function, call))
            elif name.rpartition(".")[2] in ("case", "stock_case"):
                hint = 'it is @hgm.case("claim", ...) over a plain function that is part of nothing else'
                raise BadInput(f"{program}:{decorator.lineno}: @{name} is not read as a case here", hint=hint)
    return cases


def _python_case(program: Path, function: ast.FunctionDef, decorator: ast.Call) -> Case:
    where = f"{program}:{function.lineno}"
    try:
        (claim,) = (ast.literal_eval(argument) for argument in decorator.args)
        attributes = {str(k.arg): ast.literal_eval(k.value) for k in decorator.keywords}
    except ValueError as error:
        raise BadInput(f'{where}: a case is @hgm.case("claim", attribute=literal ...)') from error
    needs_hgm = ast.unparse(decorator.func) == "hgm.case"
    return _case(program, function.lineno, function.name, claim, needs_hgm, attributes)


def _case(program: Path, line: int, name: str, claim: object, needs_hgm: bool, attributes: dict[str, object]) -> Case:
    where = f"{program}:{line}: {name}"
    for key, value in attributes.items():
        if key not in ATTRIBUTES:
            raise BadInput(f"{where}: unknown attribute {key}", hint=f"known: {', '.join(ATTRIBUTES)}")
        if not isinstance(value, ATTRIBUTES[key]):
            raise BadInput(f"{where}: {key} is {value!r}, which is no {ATTRIBUTES[key].__name__}")
    if not isinstance(claim, str) or not claim.strip():
        raise BadInput(f"{where} has no claim", hint="say in one line what the case shows")
    deadline = attributes.get("deadline_s", DEADLINE_S)
    assert isinstance(deadline, int)
    sizes, arch = tuple(str(attributes.get("sizes", "")).split()), str(attributes.get("arch", ""))
    rows = [row for row in ARCHES.values() if arch in ("", row.name)]
    if not rows:
        raise BadInput(f"{where}: there is no architecture {arch}", hint=f"known: {', '.join(ARCHES)}")
    known = [size_name(size) for size in sorted({size for row in rows for size in row.huge_page_sizes})]
    if unknown := [size for size in sizes if size not in known]:
        of = f" of {arch}" if arch else ""
        raise BadInput(f"{where}: no huge page{of} is {unknown[0]}", hint=f"known: {', '.join(known)}")
    return Case(
        program=program,
        line=line,
        name=name,
        claim=" ".join(claim.split()),
        needs_hgm=needs_hgm,
        deadline_s=deadline,
        sizes=sizes,
        arch=arch,
        spoils=bool(attributes.get("spoils", 0)),
    )
