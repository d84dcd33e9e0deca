"""Finds out for scripts/house which Rust files need which, and which of them need each other.

Names are followed to the file that defines them: `use crate::Batch` is a need of batch.rs, not of lib.rs, which only
passes the name on.
"""

import dataclasses
import pathlib
from typing import Iterator

from house_rust import FUNCTION, OPEN, Rust, Token, closing


@dataclasses.dataclass
class Use:
    """One name that a `use` brings in: `as_name` for `path`, or all of `path` if it is None."""

    path: list[str]
    as_name: str | None
    line: int
    is_public: bool


@dataclasses.dataclass
class Impl:
    """An `impl Type`, which may stand in another file than the type, and its functions."""

    path: list[str]
    line: int
    functions: set[str]


@dataclasses.dataclass
class Module:
    file: str
    parent: "Module | None"
    children: dict[str, "Module"] = dataclasses.field(default_factory=dict)
    defined: set[str] = dataclasses.field(default_factory=set)
    uses: list[Use] = dataclasses.field(default_factory=list)
    # Paths in code, with their lines: two names or more, or one that a `use ...::*` may have brought in.
    paths: list[tuple[list[str], int]] = dataclasses.field(default_factory=list)
    # Names in code outside of `use`.
    names: set[str] = dataclasses.field(default_factory=set)
    impls: list["Impl"] = dataclasses.field(default_factory=list)

    def root(self) -> "Module":
        return self.parent.root() if self.parent else self


@dataclasses.dataclass
class Edge:
    """`file` needs `other`, because of `name` on `line`."""

    file: str
    other: str
    name: str
    line: int
    is_reexport: bool = False


DEFINES = {"fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"}
MODIFIERS = {"unsafe", "async", "extern", "default", "auto"}


class Tree:
    """The modules of the crates below a folder `src`, and what they need of one another."""

    def __init__(self, files: dict[str, Rust]) -> None:
        """`files`: by path from the root of the project, with slashes."""
        self.files = files
        self.modules: list[Module] = []
        # Macros by name: an exported one is at the root of the crate, whatever file defines it.
        self.macros: dict[str, str] = {}
        for file in sorted(files):
            parts = pathlib.PurePosixPath(file).parts
            is_root = file in ("src/lib.rs", "src/main.rs") or (
                parts[:2] == ("src", "bin") and (len(parts) == 3 or (len(parts) == 4 and parts[3] == "main.rs"))
            )
            if is_root:
                self.load(Module(file, None), str(pathlib.PurePosixPath(file).parent))

    # -- reading --

    def load(self, module: Module, folder: str) -> None:
        """Reads a module's file; `folder` has the files of its children."""
        if self.files[module.file].is_test:
            return
        self.modules.append(module)
        code = self.files[module.file].code
        self.read_items(module, code, 0, len(code), folder)

    def read_items(self, module: Module, code: list[Token], at: int, end: int, folder: str) -> None:
        public = False
        while at < end:
            token = code[at]
            follows = code[at + 1].text if at + 1 < end else ""
            if token.text == "#" and follows in ("[", "!"):
                at = closing(code, at + (1 if follows == "[" else 2)) + 1
                continue
            if token.text == "pub":
                public = True
                at = closing(code, at + 1) + 1 if follows == "(" else at + 1
                continue
            if token.text == "use":
                at = self.read_use(module, code, at + 1, public)
            elif token.text == "mod" and at + 2 < end:
                at = self.read_module(module, code, at, folder)
            elif token.text in DEFINES and not (token.text == "const" and follows in FUNCTION):
                at = self.read_definition(module, code, at, end)
            elif token.text in MODIFIERS or token.text == "const" or token.kind == "string":
                at += 1
                continue
            else:
                # `impl`, or a macro that stands for items.
                if token.text == "impl":
                    self.read_impl(module, code, at + 1, end)
                stop = self.item_end(code, at, end, until_semicolon=False)
                self.read_code(module, code, at, stop)
                at = stop
            public = False

    @staticmethod
    def item_end(code: list[Token], at: int, end: int, until_semicolon: bool) -> int:
        while at < end:
            text = code[at].text if code[at].kind == "punct" else ""
            if text == ";":
                return at + 1
            if text in OPEN:
                close = closing(code, at)
                if text == "{" and not until_semicolon:
                    return close + 1
                at = close
            at += 1
        return end

    def read_definition(self, module: Module, code: list[Token], at: int, end: int) -> int:
        keyword = code[at].text
        name = at + 2 if keyword == "macro_rules" else at + 1
        if name < end and code[name].text == "mut":
            name += 1
        if name < end and code[name].kind == "ident":
            module.defined.add(code[name].text)
            if keyword == "macro_rules":
                self.macros[code[name].text] = module.file
        stop = self.item_end(code, at, end, until_semicolon=keyword in ("const", "static", "type"))
        self.read_code(module, code, name + 1, stop)
        return stop

    @staticmethod
    def read_impl(module: Module, code: list[Token], at: int, end: int) -> None:
        """Notes the type of an `impl Type`; `impl Trait for Type` may stand anywhere."""
        angles = 1 if code[at].text == "<" else 0
        while angles and at + 1 < end:
            at += 1
            angles += (code[at].text == "<") - (code[at].text == ">")
            at += angles == 0
        path, line = [], code[at].line
        while at < end and (code[at].kind == "ident" or code[at].text == "::"):
            if code[at].text in ("for", "where"):
                break
            path += [code[at].text] if code[at].kind == "ident" else []
            at += 1
        while at < end and code[at].text not in ("{", "for"):
            at += 1
        if path and at < end and code[at].text == "{":
            body = code[at : closing(code, at)]
            functions = {
                name.text
                for token, name in zip(body, body[1:], strict=False)
                if token.text == "fn" and name.kind == "ident"
            }
            module.impls.append(Impl(path, line, functions))

    def read_module(self, module: Module, code: list[Token], at: int, folder: str) -> int:
        name = code[at + 1].text
        if code[at + 2].text == "{":
            end = closing(code, at + 2)
            child = module.children[name] = Module(module.file, module)
            self.modules.append(child)
            self.read_items(child, code, at + 3, end, f"{folder}/{name}")
            return end + 1
        for file, inside in (
            (f"{folder}/{name}.rs", f"{folder}/{name}"),
            (f"{folder}/{name}/mod.rs", f"{folder}/{name}"),
        ):
            if file in self.files:
                child = module.children[name] = Module(file, module)
                self.load(child, inside)
                break
        return at + 3

    def read_use(self, module: Module, code: list[Token], at: int, public: bool) -> int:
        """Reads a `use` from behind the word to its semicolon."""

        def tree(at: int, prefix: list[str]) -> int:
            path = list(prefix)
            while True:
                token = code[at]
                if token.text == "{":
                    close = closing(code, at)
                    at += 1
                    while at < close:
                        at = tree(at, path)
                        at += code[at].text == ","
                    return close + 1
                if token.text == "*":
                    module.uses.append(Use(path, None, token.line, public))
                    return at + 1
                if token.kind == "ident":
                    path.append(token.text.removeprefix("r#"))
                    line = token.line
                    at += 1
                    if code[at].text == "::":
                        at += 1
                        continue
                    name = path[-1]
                    if name == "self" and len(path) > 1:
                        path.pop()
                        name = path[-1]
                    if code[at].text == "as":
                        name = code[at + 1].text
                        at += 2
                    module.uses.append(Use(path, name, line, public))
                    return at
                at += 1

        return tree(at, []) + 1

    def read_code(self, module: Module, code: list[Token], at: int, end: int) -> None:
        """Takes the paths out of code, and the `use`s that stand in functions."""
        while at < end:
            token = code[at]
            if token.kind != "ident":
                at += 1
                continue
            before = code[at - 1].text if at else ""
            if token.text == "use" and before in ("{", "}", ";", "]") and code[at + 1].kind == "ident":
                at = self.read_use(module, code, at + 1, False)
                continue
            path = [token.text.removeprefix("r#")]
            line = token.line
            at += 1
            while at + 1 < end and code[at].text == "::" and code[at + 1].kind == "ident":
                path.append(code[at + 1].text.removeprefix("r#"))
                at += 2
            if before in (".", "::"):
                # A method, a field, or the rest of `<T as Trait>::NAME`.
                continue
            is_macro = at < end and code[at].text == "!" and not (at + 1 < end and code[at + 1].text == "=")
            if is_macro:
                path[-1] += "!"
            if path[0] == "$crate":
                path[0] = "crate"
            module.names.add(path[0].removesuffix("!"))
            if len(path) > 1 or is_macro or any(use.as_name is None for use in module.uses):
                module.paths.append((path, line))

    # -- resolving --

    def find(
        self, module: Module, path: list[str], seen: frozenset[tuple[int, str]] = frozenset()
    ) -> "Module | str | None":
        """The module that a path names, or the file that defines what it names; None for what is not of this crate."""
        at: Module | None = module
        for index, name in enumerate(path):
            assert at is not None
            last = index == len(path) - 1
            if name == "crate" and index == 0:
                at = at.root()
            elif name == "self":
                pass
            elif name == "super":
                at = at.parent
                if at is None:
                    return None
            else:
                found = self.find_name(at, name, last, seen)
                if not isinstance(found, Module):
                    # The rest is a variant, a constant or a method of it.
                    return found
                at = found
        return at

    def find_name(
        self, module: Module, name: str, last: bool, seen: frozenset[tuple[int, str]]
    ) -> "Module | str | None":
        key = (id(module), name)
        if key in seen:
            return None
        seen = seen | {key}
        bare = name.removesuffix("!")
        if not last and bare in module.children:
            return module.children[bare]
        if bare in module.defined:
            return module.file
        imported = False
        for use in module.uses:
            if use.as_name == bare:
                # In `pub use wrapper::wrapper`, the first name is the child, and not again this `use`.
                is_child = use.path[0] == bare and bare in module.children
                begin = module.children[bare] if is_child else module
                found = self.find(begin, ["self", *use.path[1:]] if is_child else use.path, seen)
                if found is not None:
                    return found
                imported = True
        if bare in module.children:
            return module.children[bare]
        for use in module.uses:
            if use.as_name is None:
                target = self.find(module, use.path, seen)
                if isinstance(target, Module) and target is not module:
                    found = self.find_name(target, name, last, seen)
                    if found is not None:
                        return found
        if name.endswith("!") and module.parent is None:
            return self.macros.get(bare)
        # It comes from another crate, by way of this file.
        return module.file if imported else None

    def find_made(self, module: Module, path: list[str]) -> "Module | str | None":
        """As `find`. A name of this crate that nothing defines is taken for one that a macro makes in its module."""
        found = self.find(module, path)
        if found is None and path[0] in ("crate", "self", "super"):
            for length in range(len(path) - 1, 1, -1):
                inner = self.find(module, path[:length])
                if isinstance(inner, Module):
                    return inner.file
        return found

    def edges(self) -> list[Edge]:
        """The needs of all files, one edge for each name and pair of files."""
        found: dict[tuple[str, str, str], Edge] = {}

        def add(module: Module, other: "Module | str | None", name: str, line: int, is_reexport: bool = False) -> None:
            file = other.file if isinstance(other, Module) else other
            if file and file != module.file:
                edge = Edge(module.file, file, name, line, is_reexport)
                earlier = found.setdefault((module.file, file, name), edge)
                earlier.is_reexport = earlier.is_reexport and is_reexport

        for module in self.modules:
            for use in module.uses:
                if use.as_name is None:
                    continue
                other = self.find_made(module, use.path)
                if isinstance(other, Module):
                    # The paths in the code tell which of its items are needed.
                    continue
                # A name that is only passed on is not needed here.
                add(module, other, "::".join(use.path), use.line, use.is_public and use.as_name not in module.names)
            for path, line in module.paths:
                if path[0] in ("self", "Self") and len(path) == 1:
                    continue
                other = self.find_made(module, path)
                if isinstance(other, str):
                    add(module, other, "::".join(path), line)
                elif other is None and path[-1].endswith("!") and len(path) == 1:
                    add(module, self.macros.get(path[-1][:-1]), path[-1], line)
        edges = list(found.values())
        edges += self.method_edges(edges)
        return sorted(edges, key=lambda edge: (edge.file, edge.line, edge.other))

    def spread(self) -> Iterator[tuple[Edge, Impl]]:
        """Types whose own methods are not all in the file of the type."""
        for module in self.modules:
            for block in module.impls:
                other = self.find(module, block.path)
                if isinstance(other, str) and other != module.file:
                    yield Edge(module.file, other, block.path[-1], block.line), block

    def method_edges(self, edges: list[Edge]) -> list[Edge]:
        """Needs without an import: a call of a method that stands in another file than its type.

        The type of `x` in `x.method()` is not known here, so a method counts only if no other file has a function of
        its name.
        """
        in_crate = {module.file for module in self.modules}
        named: dict[str, set[str]] = {}
        called: dict[str, dict[str, int]] = {}
        for file in in_crate:
            code = self.files[file].code
            for before, token in zip(code, code[1:], strict=False):
                if token.kind == "ident" and before.text == "fn":
                    named.setdefault(token.text, set()).add(file)
                elif token.kind == "ident" and before.text in (".", "::"):
                    called.setdefault(file, {}).setdefault(token.text, token.line)
        found = []
        for spread, block in self.spread():
            users = {edge.file for edge in edges if edge.other == spread.other} | {spread.other}
            for file in users - {spread.file}:
                for name in sorted(block.functions):
                    if named[name] == {spread.file} and name in called.get(file, {}):
                        found.append(Edge(file, spread.file, f"{spread.name}::{name}", called[file][name]))
        return sorted(found, key=lambda edge: (edge.file, edge.line))


def circles(edges: list[Edge]) -> list[list[str]]:
    """Groups of files that need each other: strongly connected components of two or more, by Tarjan's algorithm."""
    needs: dict[str, list[str]] = {}
    for edge in edges:
        needs.setdefault(edge.file, []).append(edge.other)
        needs.setdefault(edge.other, [])
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    groups = []
    for first in sorted(needs):
        if first in index:
            continue
        # Without recursion: a crate may be deeper than Python's stack.
        work = [(first, iter(needs[first]))]
        index[first] = low[first] = len(index)
        stack.append(first)
        on_stack.add(first)
        while work:
            file, rest = work[-1]
            for other in rest:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(needs[other])))
                    break
                if other in on_stack:
                    low[file] = min(low[file], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[file])
                if low[file] == index[file]:
                    group: list[str] = []
                    while not group or group[-1] != file:
                        group.append(stack.pop())
                        on_stack.discard(group[-1])
                    if len(group) > 1:
                        groups.append(sorted(group))
    return sorted(groups, key=lambda group: (-len(group), group))
