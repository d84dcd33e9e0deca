"""Reads source files for scripts/house: tokens of Rust, and the prose of Rust, Markdown, Python and shell.

Prose is a list of `Paragraph`s: text as a reader sees it, without markup, where each character knows its line.
"""

import ast
import bisect
import dataclasses
import io
import pathlib
import re
import tokenize
from typing import Iterable, Iterator, NamedTuple

# What stands for inline code, a format's placeholder or an address in cleaned prose: one word that no rule looks for.
CODE = "``"
WORD = re.compile(r"``|[^\W_][\w'’.,-]*")


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
        if kind == "comment" and (found.startswith("//!") or (found.startswith("///") and not found.startswith("////"))):
            kind = "doc"
        line += text.count("\n", counted, start)
        counted = start
        tokens.append(Token(kind, found, line))
    return tokens


# ---- what of a Rust file is a test -----------------------------------------------------------------------------------

OPEN, CLOSE = {"(", "[", "{"}, {")", "]", "}"}
# Items whose first braces are not their end.
UNTIL_SEMICOLON = {"const", "static", "let", "use", "type"}
ITEMS = {"fn", "struct", "enum", "union", "trait", "impl", "mod", "macro_rules"} | UNTIL_SEMICOLON


def closing(tokens: list[Token], at: int) -> int:
    """The index of the bracket that closes the one at `at`."""
    depth = 0
    for index in range(at, len(tokens)):
        depth += (tokens[index].text in OPEN) - (tokens[index].text in CLOSE) if tokens[index].kind == "punct" else 0
        if depth == 0:
            return index
    return len(tokens) - 1


def holds_without_tests(tokens: list[Token]) -> bool | None:
    """Whether a `cfg` condition is true in a build without tests; None where it depends on something else."""
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
    """Whether what has the attribute is in builds of tests only. `attribute` is what is between the brackets."""
    names = [token.text for token in attribute]
    if names == ["test"] or names[-2:] == [":", "test"] or names[-2:] == ["::", "test"]:
        return True
    return names[:2] == ["cfg", "("] and holds_without_tests(attribute[2:-1]) is False


def item_end(tokens: list[Token], at: int) -> int:
    """The index after the item, field or arm that begins at `at`, behind its attributes."""
    item, until_semicolon = False, False
    while at < len(tokens):
        token = tokens[at]
        if token.kind == "ident" and token.text in ITEMS and not item:
            # `const fn` ends as a function does.
            item = True
            follows = tokens[at + 1].text if at + 1 < len(tokens) else ""
            until_semicolon = token.text in UNTIL_SEMICOLON and follows not in ("fn", "unsafe", "async", "extern")
            item = item and (token.text != "const" or follows not in ("fn", "unsafe", "async", "extern"))
        if token.kind == "punct":
            if token.text in CLOSE:
                return at
            if token.text in OPEN:
                end = closing(tokens, at)
                if token.text == "{" and not until_semicolon:
                    return end + 1
                at = end
            elif token.text == ";" or (token.text == "," and not item):
                return at + 1
        at += 1
    return at


class Rust(NamedTuple):
    """A Rust file: all its tokens, its code without tests, and the lines of the tests."""

    tokens: list[Token]
    code: list[Token]
    test_lines: list[tuple[int, int]]
    is_test: bool

    def in_test(self, line: int) -> bool:
        return self.is_test or any(first <= line <= last for first, last in self.test_lines)


def read_rust(text: str, is_test: bool = False) -> Rust:
    tokens = rust_tokens(text)
    code = [token for token in tokens if token.kind not in ("comment", "doc", "block")]
    kept: list[Token] = []
    lines = []
    at = 0
    while at < len(code):
        inner = code[at].text == "#" and at + 2 < len(code) and code[at + 1].text == "!" and code[at + 2].text == "["
        if inner and is_test_attribute(code[at + 3 : closing(code, at + 2)]):
            is_test = True
        if code[at].text == "#" and at + 1 < len(code) and code[at + 1].text == "[":
            first, test, after = at, False, at
            while after + 1 < len(code) and code[after].text == "#" and code[after + 1].text == "[":
                end = closing(code, after + 1)
                test = test or is_test_attribute(code[after + 2 : end])
                after = end + 1
            if test:
                at = item_end(code, after)
                lines.append((code[first].line, code[max(at - 1, first)].line))
                continue
            kept += code[at:after]
            at = after
            continue
        kept.append(code[at])
        at += 1
    return Rust(tokens, kept, lines, is_test)


# ---- prose -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Paragraph:
    """Cleaned text of one kind: `text`, `item`, `cell`, `heading` or `message`."""

    kind: str
    text: str
    # For each fragment, where it begins in `text`, and its line.
    starts: list[int]
    lines: list[int]

    def line(self, offset: int) -> int:
        return self.lines[max(bisect.bisect_right(self.starts, offset) - 1, 0)]

    def words(self) -> int:
        return len(WORD.findall(self.text))


MARKUP = re.compile(
    r"(?P<code>(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))"
    r"|(?P<address><?\bhttps?://[^\s>)\]]+>?)"
    r"|(?P<target>\]\([^)]*\)|\]\[[^\]]*\])"
    r"|(?P<drop>!?\[|\]|\*+|</?[a-z]+>)",
    re.DOTALL,
)
# In a message, a placeholder is a word as well.
MESSAGE_MARKUP = re.compile(
    MARKUP.pattern + r"|(?P<placeholder>\{[^{}\s]*\}|%\(?\w*\)?[.\d]*[sdrf]\b|\$\{[^}]*\}|\$\w+|\$\([^)]*\))", re.DOTALL
)


def paragraph(kind: str, fragments: Iterable[tuple[int, str]]) -> Paragraph | None:
    """Joins lines, with their numbers, to a paragraph without markup."""
    raw, starts, lines = "", [], []
    for line, text in fragments:
        text = text.strip()
        if text:
            raw += " " if raw else ""
            starts.append(len(raw))
            lines.append(line)
            raw += text
    clean, moved, copied = "", [], 0
    starts_left = list(starts)

    def copy(until: int) -> None:
        nonlocal clean, copied
        while starts_left and starts_left[0] < until:
            moved.append(len(clean) + max(starts_left.pop(0) - copied, 0))
        clean += raw[copied:until]
        copied = until

    pattern = MESSAGE_MARKUP if kind == "message" else MARKUP
    for match in pattern.finditer(raw):
        copy(match.start())
        while starts_left and starts_left[0] < match.end():
            starts_left.pop(0)
            moved.append(len(clean))
        clean += CODE if match.lastgroup in ("code", "address", "placeholder") else ""
        copied = match.end()
    copy(len(raw) + 1)
    return Paragraph(kind, clean, moved, lines) if WORD.search(clean) else None


FENCE = re.compile(r"\s*(?P<mark>```+|~~~+)\s*(?P<language>[^`]*)$")
HEADING = re.compile(r"\s{0,3}#{1,6}\s+(?P<text>.*)")
ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+(?P<text>.*)")
ROW = re.compile(r"\s*\|(?P<text>.*)\|\s*$")
RULE = re.compile(r"[\s|:-]*$")
REFERENCE = re.compile(r"\s*\[[^\]]+\]:\s")
# A rustdoc fence with nothing or with these words holds Rust.
RUST_FENCE = {"", "rust", "no_run", "ignore", "should_panic", "compile_fail"}


def markdown(lines: Iterable[tuple[int, str]]) -> Iterator[Paragraph]:
    """The prose of Markdown. Blocks of code are no prose, but the comments in them are."""
    kind, fragments = "text", []
    fence, language, block = "", "", []

    def flush() -> Iterator[Paragraph]:
        nonlocal kind, fragments
        found = paragraph(kind, fragments)
        kind, fragments = "text", []
        if found:
            yield found

    for number, line in lines:
        edge = FENCE.match(line)
        if fence:
            if edge and edge.group("mark").startswith(fence) and not edge.group("language"):
                yield from code_comments(language, block)
                fence, block = "", []
            else:
                block.append((number, line))
            continue
        if edge:
            yield from flush()
            fence, language = edge.group("mark"), edge.group("language").split(",")[0].strip()
        elif not line.strip() or REFERENCE.match(line):
            yield from flush()
        elif heading := HEADING.match(line):
            yield from flush()
            kind, fragments = "heading", [(number, heading.group("text"))]
            yield from flush()
        elif row := ROW.match(line):
            yield from flush()
            if not RULE.match(line):
                for cell in re.split(r"(?<!\\)\|", row.group("text")):
                    kind, fragments = "cell", [(number, cell)]
                    yield from flush()
        elif item := ITEM.match(line):
            yield from flush()
            kind, fragments = "item", [(number, item.group("text"))]
        else:
            fragments.append((number, line.lstrip("> ")))
    yield from flush()


def code_comments(language: str, block: list[tuple[int, str]]) -> Iterator[Paragraph]:
    """The comments in a block of code: `//` of Rust, `#` of shell and TOML."""
    if language in RUST_FENCE:
        mark = re.compile(r"(?:^|\s)//(?P<text>.*)$")
    elif language in ("sh", "toml", "bash", "console"):
        mark = re.compile(r"(?:^|\s)#(?P<text>.*)$")
    else:
        return
    fragments: list[tuple[int, str]] = []
    for number, line in [*block, (0, "")]:
        comment = mark.search(line)
        if not comment or line[: comment.start()].strip():
            if found := paragraph("text", fragments):
                yield found
            fragments = []
        if comment:
            fragments.append((number, comment.group("text")))


def runs(comments: Iterable[Token], after_code: set[int]) -> Iterator[list[tuple[int, str]]]:
    """Comments of neighbouring lines, their marks taken off. One behind code begins a run of its own."""
    run: list[tuple[int, str]] = []
    mark = ""
    for token in comments:
        found = re.match(r"//[/!]?", token.text)
        token_mark = found.group() if found else ""
        if run and (token.line != run[-1][0] + 1 or token_mark != mark or token.line in after_code):
            yield run
            run = []
        mark = token_mark
        # One space belongs to the mark; what is further in is Markdown's.
        run.append((token.line, re.sub(r"^ ", "", token.text[len(mark) :])))
    if run:
        yield run


# What SQL and other languages inside a string begin with.
FOREIGN = re.compile(r"\s*(?:SELECT|INSERT|CREATE|DELETE|UPDATE|PRAGMA|WITH|BEGIN|DROP|ALTER|REPLACE|<\?xml|<svg|<[a-z])\b|\s*[{\[]\s*\"")
ESCAPE = re.compile(r"\\(?:\n\s*|[nrt]|u\{[^}]*\}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
LETTERS = re.compile(r"[A-Za-z][a-z'’]+")


def is_message(text: str) -> bool:
    """Whether a string is for people: three words or more of plain text."""
    words = [word for word in text.split() if LETTERS.search(word)]
    return len(words) >= 3 and not FOREIGN.match(text)


def message(line: int, text: str, raw: bool = False) -> Iterator[Paragraph]:
    """The paragraphs of a string literal's inside."""
    if not is_message(text):
        return
    fragments = []
    for offset, part in enumerate(text.split("\n")):
        # A backslash at the end of a line goes on without a break, `\n` is one.
        pieces = re.split(r"\\n", part) if not raw else [part]
        for index, piece in enumerate(pieces):
            piece = piece if raw else ESCAPE.sub(lambda match: match.group()[1:] if match.group()[1] in "\"'\\" else " ", piece)
            if index:
                if found := paragraph("message", fragments):
                    yield found
                fragments = []
            fragments.append((line + offset, piece.rstrip("\\")))
    if found := paragraph("message", fragments):
        yield found


def rust_prose(rust: Rust) -> Iterator[Paragraph]:
    """Docs, comments, and the strings of what is no test."""
    code_lines = {token.line for token in rust.tokens if token.kind not in ("comment", "doc", "block")}
    for kind in ("doc", "comment"):
        comments = [token for token in rust.tokens if token.kind == kind]
        for run in runs(comments, code_lines):
            yield from markdown(run)
    for token in rust.tokens:
        if token.kind == "block":
            lines = token.text.strip("/*!").split("\n")
            yield from markdown((token.line + index, line.lstrip(" *")) for index, line in enumerate(lines))
        elif token.kind == "string" and token.text.startswith('"') and not rust.in_test(token.line):
            yield from message(token.line, token.text[1:-1])
        elif token.kind == "raw" and token.text.startswith("r") and not rust.in_test(token.line):
            yield from message(token.line, token.text[1:].strip("#")[1:-1], raw=True)


def python_prose(text: str) -> Iterator[Paragraph]:
    """Comments, docstrings, and strings for people."""
    comments = []
    code_lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            if not token.string.startswith("#!"):
                comments.append(Token("comment", "//" + token.string.lstrip("#"), token.start[0]))
        elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            code_lines.update(range(token.start[0], token.end[0] + 1))
    for run in runs(comments, code_lines):
        yield from markdown(run)
    yield from python_strings(ast.parse(text))


def python_strings(tree: ast.AST) -> Iterator[Paragraph]:
    inside: set[int] = set()
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        said = None
        if isinstance(node, ast.JoinedStr):
            inside.update(id(child) for child in ast.walk(node))
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            said = "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            said = node.value
        if said is None or not is_message(said):
            continue
        lines = said.split("\n")
        # Of a string in pieces, the lines are not known, only where it begins.
        spans = node.end_lineno - node.lineno + 1 == len(lines)
        with_lines = [(node.lineno + (index if spans else 0), line) for index, line in enumerate(lines)]
        if len(lines) > 1:
            yield from markdown(with_lines)
        elif found := paragraph("message", with_lines):
            yield found


SHELL_STRING = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'([^']*)'")


def shell_prose(text: str) -> Iterator[Paragraph]:
    """Comments and messages of a shell script. What is written in another language inside it is left out."""
    lines = text.split("\n")
    comments, code_lines, document = [], set(), ""
    for number, line in enumerate(lines, 1):
        if document:
            document = "" if line.strip() == document else document
            continue
        if here := re.search(r"<<-?\s*['\"]?(\w+)['\"]?", line):
            document = here.group(1)
        comment = re.match(r"\s*#(?!!)(.*)", line)
        if comment:
            comments.append(Token("comment", "//" + comment.group(1), number))
            continue
        code_lines.add(number)
        for string in SHELL_STRING.finditer(line):
            yield from message(number, string.group(1) or string.group(2) or "")
    for run in runs(comments, code_lines):
        yield from markdown(run)


def numbered(text: str) -> list[tuple[int, str]]:
    return list(enumerate(text.split("\n"), 1))


def script_kind(path: pathlib.Path, text: str) -> str:
    first = text.split("\n", 1)[0]
    if path.suffix == ".py" or ("python" in first and first.startswith("#!")):
        return "python"
    return "shell" if first.startswith("#!") else ""
