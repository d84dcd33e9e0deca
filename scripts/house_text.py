"""Extracts the prose of Rust, Markdown, Python and shell for scripts/house.

Prose is a list of paragraphs: text as a reader sees it, without markup, in which each character knows its line.
"""

import ast
import bisect
import dataclasses
import io
import re
import tokenize
from typing import Iterable, Iterator

from house_rust import COMMENTS, Rust, Token

# Stands for inline code, a placeholder or an address: one word that no rule looks for.
CODE = "``"
WORD = re.compile(r"``|[^\W_][\w'’.,-]*")


@dataclasses.dataclass
class Paragraph:
    """Cleaned text of one kind: `text`, `item`, `cell`, `heading` or `message`."""

    kind: str
    text: str
    # The offset at which each line of the source begins in `text`, and its number.
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
    """Joins numbered lines to a paragraph without markup; None if no word is left."""
    stripped = [(line, text.strip()) for line, text in fragments if text.strip()]
    raw = " ".join(text for _, text in stripped)
    pattern = MESSAGE_MARKUP if kind == "message" else MARKUP
    # Pieces of `raw`, each with its place there and in the clean text. Markup may reach over the end of a line.
    pieces: list[str] = []
    places, clean, copied = [(0, 0)], 0, 0
    for match in pattern.finditer(raw):
        mark = CODE if match.lastgroup in ("code", "address", "placeholder") else ""
        pieces += [raw[copied : match.start()], mark]
        clean += match.start() - copied + len(mark)
        copied = match.end()
        places.append((copied, clean))
    pieces.append(raw[copied:])
    starts, offset = [], 0
    for _, text in stripped:
        at = bisect.bisect_right(places, (offset, len(raw))) - 1
        there, here = places[at]
        # A line that begins inside markup begins where the markup ends.
        starts.append(min(here + offset - there, *(clean for _, clean in places[at + 1 : at + 2]), len(raw)))
        offset += len(text) + 1
    text = "".join(pieces)
    return Paragraph(kind, text, starts, [line for line, _ in stripped]) if WORD.search(text) else None


FENCE = re.compile(r"\s*(?P<mark>```+|~~~+)\s*(?P<language>[^`]*)$")
HEADING = re.compile(r"\s{0,3}#{1,6}\s+(?P<text>.*)")
ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+(?P<text>.*)")
ROW = re.compile(r"\s*\|(?P<text>.*)\|\s*$")
REFERENCE = re.compile(r"\s*\[[^\]]+\]:\s")
# A rustdoc fence with nothing or with these words holds Rust.
RUST_FENCE = {"", "rust", "no_run", "ignore", "should_panic", "compile_fail"}


def markdown(lines: Iterable[tuple[int, str]]) -> Iterator[Paragraph]:
    """The prose of Markdown. Code is no prose, but the comments in a block of code are."""
    kind: str = "text"
    fragments: list[tuple[int, str]] = []
    fence, language = "", ""
    block: list[tuple[int, str]] = []

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
    """Comments of neighbouring lines, without their marks. A comment behind code begins a run of its own."""
    run: list[tuple[int, str]] = []
    mark = ""
    for token in comments:
        found = re.match(r"//[/!]?", token.text)
        token_mark = found.group() if found else ""
        if run and (token.line != run[-1][0] + 1 or token_mark != mark or token.line in after_code):
            yield run
            run = []
        mark = token_mark
        # One space belongs to the mark. Further ones are Markdown's.
        run.append((token.line, re.sub(r"^ ", "", token.text[len(mark) :])))
    if run:
        yield run


# The first word of a string in SQL, XML or JSON.
FOREIGN = re.compile(
    r"\s*(?:SELECT|INSERT|CREATE|DELETE|UPDATE|PRAGMA|WITH|BEGIN|DROP|ALTER|REPLACE|<\?xml|<[a-z]+)\b|\s*[{\[]\s*\""
)
ESCAPE = re.compile(r"\\(?P<letter>[nrt0\n]|u\{[^}]*\}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
LETTERS = re.compile(r"[A-Za-z][a-z'’]+")


def is_message(text: str) -> bool:
    """True if a string is for people: it has three words or more, in plain text."""
    words = [word for word in text.split() if LETTERS.search(word)]
    return len(words) >= 3 and not FOREIGN.match(text)


def message(line: int, text: str, raw: bool = False) -> Iterator[Paragraph]:
    """The paragraphs inside a string literal. `\\n` ends a paragraph, a backslash at the end of a line does not."""
    if not is_message(text):
        return
    fragments: list[tuple[int, str]] = []
    for offset, part in enumerate(text.split("\n")):
        for index, piece in enumerate([part] if raw else part.split("\\n")):
            if index:
                if found := paragraph("message", fragments):
                    yield found
                fragments = []
            if not raw:
                piece = ESCAPE.sub(lambda match: match["letter"] if match["letter"] in "\"'\\" else " ", piece)
            fragments.append((line + offset, piece.rstrip("\\")))
    if found := paragraph("message", fragments):
        yield found


def rust_prose(rust: Rust) -> Iterator[Paragraph]:
    """Documentation, comments, and strings outside of tests."""
    code_lines = {token.line for token in rust.tokens if token.kind not in COMMENTS}
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
    code_lines: set[int] = set()
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
        if id(node) in inside or not isinstance(node, ast.expr):
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
        # The lines of a string in pieces are not known: all of it counts for its first line.
        spans = (node.end_lineno or 0) - node.lineno + 1 == len(lines)
        with_lines = [(node.lineno + (index if spans else 0), line) for index, line in enumerate(lines)]
        if len(lines) > 1:
            yield from markdown(with_lines)
        elif found := paragraph("message", with_lines):
            yield found


SHELL_STRING = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'([^']*)'")


def shell_prose(text: str) -> Iterator[Paragraph]:
    """Comments and messages of a shell script, without its here-documents, which may be in another language."""
    comments = []
    code_lines: set[int] = set()
    document = ""
    for number, line in numbered(text):
        if document:
            document = "" if line.strip() == document else document
            continue
        if here := re.search(r"(?<!<)<<-?\s*['\"]?(\w+)['\"]?", line):
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


def script_prose(name: str, text: str) -> Iterator[Paragraph]:
    """The prose of a script in Python or shell, by its name or first line; nothing of other files."""
    first = text.split("\n", 1)[0]
    if name.endswith(".py") or (first.startswith("#!") and "python" in first):
        return python_prose(text)
    return shell_prose(text) if first.startswith("#!") else iter(())
