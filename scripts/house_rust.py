"""Reads Rust for scripts/house: tokens, the parts that only tests have, and the length of functions."""

import dataclasses
import re
from typing import Iterator, NamedTuple


class Token(NamedTuple):
    kind: str
    text: str
    line: int


TOKEN = re.compile(
    r"""
    \s*(?:
    (?P<comment>//[^\n]*)
  | (?P<block>/\*)
  | (?P<raw>(?:br|cr|r)(?P<hashes>\#*)".*?"(?P=hashes))
  | (?P<string>[bc]?"(?:[^"\\]|\\.)*")
  | (?P<char>b?'(?:[^'\\\n]|\\(?:x[0-9a-fA-F]{2}|u\{[^}]*\}|.))')
  | (?P<lifetime>'[^\W\d]\w*)
  | (?P<ident>(?:r\#)?[^\W\d]\w*)
  | (?P<number>\d\w*(?:\.\d\w*)?)
  | (?P<punct>::|=>|->|\S)
    )
    """,
    re.VERBOSE | re.DOTALL,
)
COMMENTS = {"comment", "doc", "block"}
# Block comments nest.
BLOCK_EDGE = re.compile(r"/\*|\*/")


def rust_tokens(text: str) -> list[Token]:
    """All tokens of a Rust file but white space. Comments have the kinds `comment`, `doc` and `block`."""
    tokens, at, line, counted = [], 0, 1, 0
    while match := TOKEN.match(text, at):
        kind = match.lastgroup or ""
        start, at = match.span(kind)
        if kind == "block":
            depth = 1
            while depth and (edge := BLOCK_EDGE.search(text, at)):
                depth, at = depth + (1 if edge.group() == "/*" else -1), edge.end()
            at = len(text) if depth else at
        found = text[start:at]
        if kind == "comment" and (
            found.startswith("//!") or (found.startswith("///") and not found.startswith("////"))
        ):
            kind = "doc"
        line += text.count("\n", counted, start)
        counted = start
        tokens.append(Token(kind, found, line))
    return tokens


# ---- tests of a Rust file --------------------------------------------------------------------------------------------

OPEN, CLOSE = {"(", "[", "{"}, {")", "]", "}"}
# The words that begin an item. After those of the second set, the item goes on behind its first braces.
UNTIL_BRACE = {"fn", "struct", "enum", "union", "trait", "impl", "mod", "macro_rules"}
UNTIL_SEMICOLON = {"const", "static", "let", "use", "type"}
# `const fn` is a function.
FUNCTION = {"fn", "unsafe", "async", "extern"}


def closing(tokens: list[Token], at: int) -> int:
    """The index of the bracket that closes the one at `at`."""
    depth = 0
    for index in range(at, len(tokens)):
        if tokens[index].kind == "punct":
            depth += (tokens[index].text in OPEN) - (tokens[index].text in CLOSE)
        if depth == 0:
            return index
    return len(tokens) - 1


def holds_without_tests(tokens: list[Token]) -> bool | None:
    """True or False if a `cfg` condition is so in each build without tests, None if it depends on something else."""
    if not tokens:
        return None
    name, inner = tokens[0].text, []
    if len(tokens) > 1 and tokens[1].text == "(":
        part: list[Token] = []
        depth = 0
        for token in tokens[2:]:
            depth += (token.text in OPEN) - (token.text in CLOSE)
            if depth < 0 or (token.text == "," and depth == 0):
                if part:
                    inner.append(holds_without_tests(part))
                part = []
                if depth < 0:
                    break
            else:
                part.append(token)
    if name == "test" and not inner:
        return False
    if name == "not" and len(inner) == 1:
        return None if inner[0] is None else not inner[0]
    if name == "all":
        return False if False in inner else None if None in inner else True
    if name == "any":
        return True if True in inner else None if None in inner else False
    return None


def is_test_attribute(attribute: list[Token]) -> bool:
    """True for `#[test]` and for a `cfg` that only builds of tests meet. `attribute` is between the brackets."""
    names = [token.text for token in attribute]
    if names == ["test"] or names[-2:] == ["::", "test"]:
        return True
    return names[:2] == ["cfg", "("] and holds_without_tests(attribute[2:-1]) is False


def item_end(tokens: list[Token], at: int) -> int:
    """The index after the item, field or arm that begins at `at`, behind its attributes."""
    keyword = ""
    while at < len(tokens):
        token = tokens[at]
        if token.kind == "ident" and not keyword and token.text in UNTIL_BRACE | UNTIL_SEMICOLON:
            follows = tokens[at + 1].text if at + 1 < len(tokens) else ""
            keyword = "" if token.text == "const" and follows in FUNCTION else token.text
        if token.kind == "punct":
            if token.text in CLOSE:
                return at
            if token.text in OPEN:
                end = closing(tokens, at)
                if token.text == "{" and keyword not in UNTIL_SEMICOLON:
                    return end + 1
                at = end
            # The commas of an item are between its parameters.
            elif token.text == ";" or (token.text == "," and not keyword):
                return at + 1
        at += 1
    return at


class Rust(NamedTuple):
    """A Rust file: all its tokens, its code without tests, the lines of the tests, and if all of it is a test."""

    tokens: list[Token]
    code: list[Token]
    test_lines: list[tuple[int, int]]
    is_test: bool

    def in_test(self, line: int) -> bool:
        return self.is_test or any(first <= line <= last for first, last in self.test_lines)


def read_rust(text: str) -> Rust:
    tokens = rust_tokens(text)
    code = [token for token in tokens if token.kind not in COMMENTS]
    texts = [token.text for token in code]
    kept: list[Token] = []
    lines = []
    is_test = False
    at = 0
    while at < len(code):
        if texts[at : at + 3] == ["#", "!", "["] and is_test_attribute(code[at + 3 : closing(code, at + 2)]):
            is_test = True
        after, of_test = at, False
        while texts[after : after + 2] == ["#", "["]:
            end = closing(code, after + 1)
            of_test = of_test or is_test_attribute(code[after + 2 : end])
            after = end + 1
        if of_test:
            after = item_end(code, after)
            lines.append((code[at].line, code[after - 1].line))
        else:
            after = max(after, at + 1)
            kept += code[at:after]
        at = after
    return Rust(tokens, kept, lines, is_test)


# ---- functions -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Function:
    name: str
    file: str
    line: int
    lines: int
    is_table: bool


# One arm of a match on its line, or one entry of an array: a literal, a tuple, an array or a call.
TABLE_LINE = re.compile(
    r"\s*(?:[^=]+\s=>\s[^{]*,|[^=]+\s=>\s.*\},?"
    r"|(?:[\"(\[\d-]|r#*\"|b\"|\w+(?:::\w+)*[({]).*[\])}\"\w],)\s*$"
)
# A function with a larger share of such lines is a table: as long as its list, and as easy to read.
TABLE = 3 / 4


def functions(file: str, rust: Rust, text: str) -> Iterator[Function]:
    """The functions with a body, without tests. The lines of an inner function count for the outer one too."""
    code, lines = rust.code, text.split("\n")
    for at, token in enumerate(code):
        if token.text != "fn" or token.kind != "ident" or at + 1 == len(code) or code[at + 1].kind != "ident":
            continue
        body = at + 2
        # A declaration ends with a semicolon. Bounds have no braces: the first one outside of brackets is the body's.
        while body < len(code) and code[body].text not in ("{", ";"):
            body = closing(code, body) + 1 if code[body].text in ("(", "[") else body + 1
        if body == len(code) or code[body].text == ";":
            continue
        end = code[closing(code, body)].line
        inside = [line for line in lines[code[body].line : end - 1] if line.strip()]
        table = [line for line in inside if TABLE_LINE.match(line)]
        is_table = len(inside) > 0 and len(table) > TABLE * len(inside)
        yield Function(code[at + 1].text, file, token.line, end - token.line + 1, is_table)
