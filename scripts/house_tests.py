"""Tests of scripts/house, on small trees that break one rule or none: python3 scripts/house_tests.py

tests/it/house.rs runs them.
"""

import importlib.machinery
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
SCRIPT = pathlib.Path(__file__).resolve().parent / "house"
loader = importlib.machinery.SourceFileLoader("house", str(SCRIPT))
spec = importlib.util.spec_from_loader("house", loader)
assert spec
house = importlib.util.module_from_spec(spec)
sys.modules["house"] = house
loader.exec_module(house)

import house_prose as prose  # noqa: E402
import house_text as text_source  # noqa: E402

FILLER = "The store keeps one entry for each key."
FILLER_WORDS = 8


class Case(unittest.TestCase):
    """A tree of its own for each test."""

    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name)

    def rows(self, **files: str) -> dict:
        """The rows of a tree by rule; in names, `__` stands for a slash."""
        return self.tree({name.replace("__", "/") + ".rs": text for name, text in files.items()})

    def tree(self, files: dict[str, str]) -> dict:
        for name, text in {"src/lib.rs": "", **files}.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return self.again()

    def again(self) -> dict:
        """The rows of the tree as it is."""
        return {row.rule or row.what: row for row in house.House(self.root).rows()}

    def found(self, rule: str, files: dict[str, str]) -> list[str]:
        return [f"{finding.file}:{finding.line}" for finding in self.tree(files)[rule].findings]

    def run_script(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(SCRIPT), "--root", str(self.root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def found_in(find, text: str, kind: str = "text") -> list[str]:
    paragraph = text_source.paragraph(kind, text_source.numbered(text))
    return [said for _, said in find(paragraph)] if paragraph else []


class AForPer(Case):
    COUNTED = (
        "One row a text.",
        "Gives one vector a text.",
        "a JSON object a line",
        "a result a text, and more",
        "streams, a result a text",
        "One request a call; `retry` tries again.",
        "a byte a key and no copy",
        "8,191 tokens a text and 300,000 tokens a request",
        "9,400 texts a second",
        "9,400 texts a second are embedded",
        "keeps to requests and tokens a minute",
        "Tokens a text",
        "Texts a call.",
        "a short lock a call",
        "one single-threaded session a core",
        "no allocation a row",
        "a timer a call",
        "430,000 hits/s a core",
        "two looks at the clock a call",
        "counted at most once a text",
        "once a machine and model",
        "ten a second by default",
        "`max` a second beside",
        "So much a minute.",
        "Embed texts, one a line",
        "hundreds of calls a second",
        "`n` retries a call",
        "0.344 a text",
        "The graph gives a vector a token.",
        "makes a session a thread",
        "has an allocation an entry",
        "makes one call a text",
        "two short locks a call",
        "Bytes of text a call.",
        "one hash a text",
        "three keys\na call",
        "A million tokens a minute is enough.",
    )
    FINE = (
        "One row per text.",
        "300,000 tokens per request",
        "gives a caller a chance",
        "makes a batch a unit",
        "gives a text a row",
        "hands each call a text",
        "gives texts a key",
        "calls a text too long",
        "the tokens a batch holds",
        "how many texts a model embeds in a second",
        "How far a row is from the vector",
        "How long a row a file takes",
        "the rows a call has returned",
        "which texts a call brings",
        "Reads a file that need not be there",
        "It copies a row that is wanted.",
        "Adds a row.",
        "Turns a failure of the store into a miss",
        "waits half a second",
        "once a day, twice a second",
        "once a text is embedded",
        "from 9 to 3.4. A call waits",
        "the texts `a call` takes",
        "`embed` a batch",
        "7.4 times a caller of another library",
        "a text a token longer",
        "reads a line a word at a time",
        "For this row a text and a key are kept.",
        "of each of all texts, a batch waits",
        "all a caller needs",
        "when a caller requests a value",
        "no caller requests a value",
        "a client may request a value",
        "it locks and copies a row",
        "A client writes a request.",
        "It adds to the text a key and a row.",
    )

    def test_what_is_counted(self) -> None:
        for text in self.COUNTED:
            with self.subTest(text):
                self.assertGreaterEqual(len(found_in(prose.a_for_per, text)), 1)

    def test_two_in_a_sentence_are_two(self) -> None:
        text = "At most 8,191 tokens a text and 300,000 tokens a request."
        self.assertEqual(len(found_in(prose.a_for_per, text)), 2)

    def test_what_is_fine(self) -> None:
        for text in self.FINE:
            with self.subTest(text):
                self.assertEqual(found_in(prose.a_for_per, text), [])

    def test_the_limit_is_one_in_ten_thousand_words(self) -> None:
        # 4 words, and the rest that makes 10,000 or one less.
        for filler, over in ((1249, False), (1248, True)):
            text = "One row a text.\n" + (FILLER + "\n") * filler + "It ends now.\n" + ("too\n" if not over else "")
            row = self.tree({"README.md": text})["a-for-per"]
            self.assertEqual((row.count, row.is_over), (1, over), filler)


class Clause(Case):
    COUNTED = (
        "What does not fit is an error.",
        "Who brings a provider needs no other.",
        "Whoever reads gets a copy.",
        "Where there are texts, they are embedded.",
        "Where asked, it waits.",
        "Which they answer with is seen.",
        "Whatever comes out is kept.",
        "Whose it is.",
        "On whose behalf the texts are embedded.",
        "At which price a provider works.",
        "For what.",
        "And who wants one provider must not pay for another.",
        "That it fails is seen.",
        "An entry is small. What it costs is known.",
        "It ends.\nWhat comes\nthen is lost.",
        'An entry (`x`) is small. "What it costs" is known.',
    )
    FINE = (
        "When a call fails, it is tried again.",
        "If there are none, it waits.",
        "While it waits, others go on.",
        "An entry is what it costs.",
        "What is a space?",
        "Why? Who pays for it?",
        "That is all.",
        "That text is short.",
        "In which case it waits.",
        "It waits, e.g. Whatever.rs is read.",
        "an item. what it costs",
        "`What` is a name.",
        "How to find it.",
        "Whereas a row is short, a text is long.",
    )

    def test_what_is_counted(self) -> None:
        for text in self.COUNTED:
            with self.subTest(text):
                self.assertEqual(len(found_in(prose.clause_for_noun, text)), 1)

    def test_what_is_fine(self) -> None:
        for text in self.FINE:
            with self.subTest(text):
                self.assertEqual(found_in(prose.clause_for_noun, text), [])

    def test_headings_and_names_of_columns_are_none(self) -> None:
        text = "# What it costs\n\n| what it is | where it is |\n|---|---|\n| a key | here |\n"
        self.assertEqual(self.found("clause", {"README.md": text}), [])

    def test_how_and_whether_have_no_limit(self) -> None:
        rows = self.tree({"README.md": "Whether it fits. How long it takes. Why it fails."})
        self.assertEqual((rows["clause"].count, rows["manner"].count), (0, 3))
        self.assertFalse(rows["manner"].is_over)

    def test_the_limit_is_one_in_two_thousand_words(self) -> None:
        # 8 words, and the rest that makes 2,000 or one less.
        for rest, over in (
            ("The store keeps one entry for each key.", False),
            ("The store keeps one entry for keys.", True),
        ):
            text = "What does not fit here is an error. " + (FILLER + "\n") * 248 + rest
            row = self.tree({"README.md": text})["clause"]
            self.assertEqual((row.count, row.is_over), (1, over), rest)


class Places(Case):
    """Prose is found where it is, on its own line, and nowhere else."""

    def clauses(self, name: str, text: str) -> list[str]:
        return self.found("clause", {name: text})

    def test_rust(self) -> None:
        text = """//! A file.
//! What it holds is text.

/// A function. It is short
/// and good. Where it fails,
/// it says so.
fn f() {
    let x = 1; // What it is.
    // Two lines. What the
    // second says.
    let url = "https://example.org"; // Whatever.
    let message = "what it says goes here";
    let longer = "a line and \\
        more; a sentence. What follows it.";
    let raw = r#"What a "raw" string says."#;
    /* What a block says. */
}
"""
        lines = [2, 5, 8, 9, 11, 12, 14, 15, 16]
        self.assertEqual(self.clauses("src/lib.rs", text), [f"src/lib.rs:{line}" for line in lines])

    def test_what_of_rust_is_no_prose(self) -> None:
        text = """//! A file.
//!
//! ```
//! let what = "What is not looked at.";
//! What();
//! ```
//!
//! # What it is
//! [What it links](crate::What) is `What`.
fn f() {
    let sql = "SELECT what FROM where_it_is";
    let short = "What it";
    let bytes = b"What the bytes of it are";
    let c = 'W';
}
#[cfg(test)]
mod tests {
    const X: &str = "What a test says here.";
}
"""
        self.assertEqual(self.clauses("src/lib.rs", text), ["src/lib.rs:9"])

    def test_lines_with_markup(self) -> None:
        lines = (
            "`some code` and `more code` and [a link](https://example.org/a/long/one) are",
            "here. What it is, with [a link",
            "that breaks](https://example.org/a",
            ") in it. Where",
            "it ends. `a`",
            "`b` is one. What is left.",
        )
        self.assertEqual(self.clauses("README.md", "\n".join(lines)), [f"README.md:{line}" for line in (2, 4, 6)])

    def test_a_line_break_in_a_message(self) -> None:
        text = 'fn f() {\n    g("what it was\\nWhat it is\\nthat is all");\n}\n'
        self.assertEqual(self.clauses("src/lib.rs", text), ["src/lib.rs:2", "src/lib.rs:2"])

    def test_examples(self) -> None:
        self.assertEqual(self.clauses("examples/a.rs", "//! What it shows.\n"), ["examples/a.rs:1"])

    def test_the_tests_of_this_script(self) -> None:
        for name in ("scripts/house_tests.py", "tests/it/house.rs"):
            self.assertEqual(self.clauses(name, "# What is tokenised.\n"), [])
            self.assertEqual(self.again()["spelling"].count, 0)

    def test_comments_in_examples_of_docs(self) -> None:
        text = "//! ```\n//! // What it does is this.\n//! f(); // Where it ends.\n//! ```\n"
        self.assertEqual(self.clauses("src/lib.rs", text), ["src/lib.rs:2", "src/lib.rs:3"])

    def test_a_fence_of_another_language_is_no_rust(self) -> None:
        text = '```text\n// What it is.\n```\n```json\n{"a": "What it is."}\n```\nWhat is left.\n'
        self.assertEqual(self.clauses("README.md", text), ["README.md:7"])

    def test_markdown(self) -> None:
        text = "- What it is.\n  What it\n  costs.\n1. Where it is, it stays.\n\n"
        text += "| a | b |\n|---|---|\n| key | What it holds. |\n"
        lines = [1, 2, 4, 8]
        for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benches/RESULTS.md"):
            with self.subTest(name):
                self.assertEqual(self.clauses(name, text), [f"{name}:{line}" for line in lines])
                (self.root / name).unlink()
        self.assertEqual(self.clauses("src/docs/calls.md", text), [f"src/docs/calls.md:{line}" for line in lines])

    def test_comments_that_do_not_belong_together(self) -> None:
        text = "// A line without an end\n\n// What comes after a gap.\n"
        text += "let x = 1; // one thing\nlet y = 2; // What it is.\n"
        self.assertEqual(self.clauses("src/lib.rs", text), ["src/lib.rs:3", "src/lib.rs:5"])

    def test_another_language_in_a_string_has_no_words(self) -> None:
        for text in ("SELECT a, b FROM c", "WITH some AS (SELECT a)", "<svg width of it>"):
            self.assertEqual(self.rows(src__lib=f'const A: &str = "{text}";')["words of prose"].count, 0)

    def test_python(self) -> None:
        text = (
            '#!/usr/bin/env python3\n"""A script.\n\nWhat it does is this.\n"""\nx = 1  # What it is.\n'
            'print(f"what {x} costs is here")\nkey = {"what": 1}\n# What the last\n# comment says.\n'
        )
        self.assertEqual(self.clauses("scripts/some", text), [f"scripts/some:{line}" for line in (4, 6, 7, 9)])

    def test_python_by_its_name(self) -> None:
        self.assertEqual(self.clauses("scripts/some.py", "x = 1\n# What it is.\n"), ["scripts/some.py:2"])
        self.assertEqual(self.clauses("scripts/some.txt", "# What it is.\n"), ["scripts/some.py:2"])

    def test_shell(self) -> None:
        text = (
            '#!/usr/bin/env bash\n# What it does is this.\necho "what it says is this"\ncat <<END\nWhat it is not.\n'
            "# What it is not.\nEND\n# What comes last.\n"
        )
        self.assertEqual(self.clauses("scripts/some", text), [f"scripts/some:{line}" for line in (2, 3, 8)])
        text = "#!/bin/sh\ncat <<<word\n# What comes after it.\n"
        self.assertEqual(self.clauses("scripts/some", text), ["scripts/some:3"])

    def test_files_without_a_word_of_prose(self) -> None:
        self.assertEqual(self.tree({})["words of prose"].count, 0)

    def test_words_are_counted(self) -> None:
        rows = self.tree(
            {"README.md": f"# A heading\n{FILLER}\n\n```sh\nno words\n```\n", "src/lib.rs": "// Four words are here.\n"}
        )
        self.assertEqual(rows["words of prose"].count, 2 + FILLER_WORDS + 4)


class Words(Case):
    def test_what_is_counted(self) -> None:
        for text in (
            "It runs on a card.",
            "two cards",
            "The journal is brought home.",
            "It begins anew.",
            "for who wants it",
            "whatever befell it",
        ):
            with self.subTest(text):
                self.assertEqual(len(found_in(prose.odd_words, text)), 1)

    def test_what_is_fine(self) -> None:
        for text in (
            "It runs on a GPU.",
            "the model card",
            "a wildcard",
            "its cardinality",
            "brought here",
            "a new call",
            "for whom it waits",
            "asks who pays",
            "`card`",
        ):
            with self.subTest(text):
                self.assertEqual(found_in(prose.odd_words, text), [])

    def test_one_is_too_many(self) -> None:
        row = self.tree({"README.md": (FILLER + "\n") * 5000 + "It needs a card.\n"})["word"]
        self.assertEqual(([finding.line for finding in row.findings], row.is_over), ([5001], True))


class Spelling(Case):
    def spelled(self, text: str) -> list[str]:
        return [word for _, word, _ in prose.british_spellings(text)]

    def test_what_is_counted(self) -> None:
        for word in (
            "normalise",
            "Normalised",
            "tokenising",
            "tokeniser",
            "quantisation",
            "recognises",
            "serialised",
            "initialise",
            "summarising",
            "organisation",
            "untokenised",
            "deserialise",
            "emphasise",
            "TOKENISE",
            "authorised",
            "parallelisable",
            "reinitialised",
            "optimiser",
        ):
            with self.subTest(word):
                self.assertEqual(self.spelled(f"It is {word}."), [word])

    def test_the_better_word_is_named(self) -> None:
        for word, better in (("tokeniser", "tokenizer"), ("Normalised", "Normalized"), ("TOKENISE", "TOKENIZE")):
            self.assertEqual([form for _, _, form in prose.british_spellings(word)], [better])

    def test_names_in_code(self) -> None:
        for text, word in (
            ("fn is_tokenised()", "tokenised"),
            ("no_normalisation", "normalisation"),
            ("struct JobTokenise;", "Tokenise"),
            ('"layer.quantised"', "quantised"),
        ):
            with self.subTest(text):
                self.assertEqual(self.spelled(text), [word])

    def test_what_is_fine(self) -> None:
        for word in (
            "normalize advise exercise promise precise otherwise raise noise surprise enterprise concise wise revise "
            "comprise disguise emphasis analysis organisms optimism realism realist specialist vector is likewise "
            "expertise franchise improvise merchandise paradise supervise televise tokenise_is_not praise"
        ).split():
            if word != "tokenise_is_not":
                with self.subTest(word):
                    self.assertEqual(self.spelled(word), [])

    def test_all_files_of_the_project(self) -> None:
        names = [
            "README.md",
            "Cargo.toml",
            "src/lib.rs",
            "src/docs/a.md",
            "examples/a.rs",
            "benches/a.rs",
            "tests/it/a.rs",
            "tests/golden/a.py",
            "scripts/a",
        ]
        rows = self.tree({name: "\n# it is tokenised\n" for name in names})
        self.assertEqual(sorted(finding.file for finding in rows["spelling"].findings), sorted(names))
        self.assertEqual({finding.line for finding in rows["spelling"].findings}, {2})
        self.assertTrue(rows["spelling"].is_over)

    def test_what_is_built_is_not_looked_at(self) -> None:
        self.assertEqual(self.found("spelling", {"benches/peers/target/a.rs": "// tokenised"}), [])

    def test_a_kept_place(self) -> None:
        (name, better), reason = next(iter(house.KEPT_SPELLINGS.items()))
        self.assertTrue(all(house.KEPT_SPELLINGS.values()), reason)
        word = better.replace("iz", "is")
        text = f"x = '{word}'\n"
        self.assertEqual(self.found("spelling", {name: text}), [])
        other = "tests/golden/other.py"
        self.assertEqual(self.found("spelling", {other: text}), [f"{other}:1"])


def function(lines: int, name: str = "f", line: str = "    g();") -> str:
    return f"fn {name}() {{\n" + f"{line}\n" * (lines - 2) + "}\n"


class Functions(Case):
    def long(self, text: str) -> list[str]:
        return [finding.text for finding in self.rows(src__lib=text)["function"].findings]

    def test_sixty_lines_are_enough(self) -> None:
        self.assertEqual(self.long(function(60)), [])
        self.assertEqual(self.long(function(61)), ["f: 61 lines"])

    def test_one_is_too_many(self) -> None:
        self.assertTrue(self.rows(src__lib=function(61))["function"].is_over)
        self.assertFalse(self.rows(src__lib=function(60))["function"].is_over)

    def test_braces_that_are_none(self) -> None:
        for line in (
            'let x = "{{{";',
            "let c = '{';",
            'let r = r#"{"{"#;',
            "// {",
            "/* { /* { */ */",
            "let b = b'{';",
            "let q = '\\'';",
            "let l: &'a str = x;",
            'let e = "\\"{";',
        ):
            with self.subTest(line):
                self.assertEqual(self.long(function(30, line=f"    {line}") + function(40, "g")), [])
                self.assertEqual(self.long(function(61, line=f"    {line}") + function(3, "g")), ["f: 61 lines"])

    def test_signatures(self) -> None:
        text = (
            "fn f<'a, T: Fn(&[u8; 3]) -> X>(a: [u8; 4], g: fn(u8) -> u8) -> Vec<T>\nwhere\n    T: 'a,\n{\n"
            + "    g();\n" * 56
            + "}\n"
        )
        self.assertEqual(self.long(text), ["f: 61 lines"])
        self.assertEqual(self.long("trait A {\n    fn f();\n    fn g();\n}\n" + "const A: u8 = 1;\n" * 100), [])

    def test_methods_and_functions_inside(self) -> None:
        text = (
            "impl A {\n    pub(crate) async fn f(&self) {\n        fn inner() {\n"
            + "            g();\n" * 60
            + "        }\n    }\n}\n"
        )
        self.assertEqual(self.long(text), ["f: 64 lines", "inner: 62 lines"])

    def test_tests_may_be_long(self) -> None:
        self.assertEqual(self.long("#[cfg(test)]\nmod tests {\n" + function(100) + "}\n"), [])
        self.assertEqual(self.long("#[test]\n" + function(100)), [])
        self.assertEqual(self.long("#[cfg(test)]\n#[allow(dead_code)]\n" + function(100)), [])
        self.assertEqual(self.long("#![cfg(test)]\n" + function(100)), [])
        self.assertEqual(self.long("#[cfg(not(any(unix, not(test))))]\n" + function(100)), [])
        self.assertEqual(self.long('#[cfg(all(test, feature = "a"))]\n' + function(100)), [])
        rows = self.rows(src__lib="#[cfg(test)]\nmod tests;\n", src__tests=function(100))
        self.assertEqual(rows["function"].count, 0)

    def test_what_looks_like_a_test_but_is_none(self) -> None:
        for condition in (
            "not(test)",
            "any(unix, not(test))",
            'feature = "test"',
            'any(test, feature = "a")',
            "testing",
        ):
            with self.subTest(condition):
                self.assertEqual(self.long(f"#[cfg({condition})]\n" + function(61)), ["f: 61 lines"])
        # A function after a test counts.
        for test in (
            "use a::b;",
            "const A: X = X { a: 1 };",
            "const fn g() {}",
            "fn g<A, B>() {}",
            "mod tests;",
            "struct A { a: u8 }",
            "struct A(u8);",
            "impl A { fn a(); }",
        ):
            with self.subTest(test):
                self.assertEqual(self.long(f"#[cfg(test)]\n{test}\n" + function(61)), ["f: 61 lines"])
        self.assertEqual(
            self.long("struct A {\n    #[cfg(test)]\n    a: u8,\n    b: u8,\n}\n" + function(61)), ["f: 61 lines"]
        )

    def test_a_table_may_be_long(self) -> None:
        arms = "fn f() {\n    match x {\n" + '        Self::A => "a",\n' * 80 + "    }\n}\n"
        entries = "fn f() {\n    [\n" + '        ("a", 1),\n' * 80 + "    ]\n}\n"
        self.assertEqual(self.long(arms), [])
        self.assertEqual(self.long(entries), [])

    def test_a_table_in_part_is_none(self) -> None:
        part = "fn f() {\n    match x {\n" + '        Self::A => "a",\n' * 45 + "    }\n" + "    g();\n" * 15 + "}\n"
        self.assertEqual(self.long(part), ["f: 64 lines"])
        blocks = "fn f() {\n    match x {\n" + "        Self::A => {\n            g()\n        }\n" * 30 + "    }\n}\n"
        self.assertEqual(self.long(blocks), ["f: 94 lines"])


class Files(Case):
    def test_650_lines_are_enough(self) -> None:
        for lines, over in ((650, False), (651, True)):
            row = self.rows(src__lib="mod a;\n", src__a="const A: u8 = 1;\n" * lines)["file"]
            self.assertEqual((row.count, row.is_over), (lines, over))
            self.assertEqual([finding.file for finding in row.findings], ["src/a.rs"] * over)
            self.assertIn("src/a.rs", row.what)

    def test_tests_and_programs_are_apart(self) -> None:
        rows = self.rows(
            src__lib="const A: u8 = 1;\n" * 600 + "#[cfg(test)]\nmod tests {\n" + "    use super::*;\n" * 300 + "}\n",
            src__bin__a__main="const A: u8 = 1;\n" * 700,
        )
        self.assertEqual((rows["file"].count, rows["file"].is_over), (600, False))
        self.assertEqual(rows["longest"].count, 700)

    def test_a_file_of_tests_is_apart(self) -> None:
        row = self.rows(src__lib="#[cfg(test)]\nmod tests;\n", src__tests="const A: u8 = 1;\n" * 700)["file"]
        self.assertEqual((row.count, row.is_over), (0, False))


class Comments(Case):
    def test_lines_that_say_why(self) -> None:
        text = "//! A file.\n\n/// A.\n// Why.\n// More.\nfn f() {} // Not alone.\n"
        text += "#[cfg(test)]\nmod tests {\n    // None.\n}\n"
        rows = self.rows(src__lib=text)
        self.assertEqual(rows["lines of // comments: 33.3 % of lines, 50.0 % of comments"].count, 2)


class Circles(Case):
    def circles(self, files: dict[str, str], rule: str = "circle") -> list[list[str]]:
        """The groups, without `src/` and `.rs`."""
        row = self.tree({f"src/{name}.rs": text for name, text in files.items()})[rule]
        self.assertEqual(row.is_over, rule == "circle" and row.count > 0)
        groups = [finding.text.split(": ")[1] for finding in row.findings if "a circle of" in finding.text]
        self.assertEqual(row.count, len(groups))
        return [[name[4:-3] for name in group.split(", ")] for group in groups]

    def test_two_files(self) -> None:
        files = {
            "lib": "mod a;\nmod b;\n",
            "a": "use crate::b::B;\npub struct A(B);\n",
            "b": "use crate::a::A;\npub struct B(A);\n",
        }
        self.assertEqual(self.circles(files), [["a", "b"]])

    def test_one_way_is_none(self) -> None:
        files = {"lib": "mod a;\nmod b;\n", "a": "use crate::b::B;\npub struct A(B);\n", "b": "pub struct B;\n"}
        self.assertEqual(self.circles(files), [])

    def test_three_files_and_two_more(self) -> None:
        files = {
            "lib": "mod a;\nmod b;\nmod c;\nmod d;\nmod e;\nmod f;\n",
            "a": "use crate::b::B;\npub struct A;\n",
            "b": "use crate::c::C;\npub struct B;\n",
            "c": "use crate::a::A;\npub struct C;\n",
            "d": "use crate::e::E;\npub struct D;\n",
            "e": "use crate::{a::A, d::D};\npub struct E;\n",
            "f": "use crate::{a::A, d::D};\n",
        }
        self.assertEqual(self.circles(files), [["a", "b", "c"], ["d", "e"]])

    def test_each_need_is_listed(self) -> None:
        files = {
            "lib": "mod a;\nmod b;\n",
            "a": "\nuse crate::b::B;\npub struct A(B);\n",
            "b": "use crate::a::A;\npub struct B(A);\n",
        }
        self.circles(files)
        row = self.again()["circle"]
        needs = [f"{finding.file}:{finding.line}:{finding.text}" for finding in row.findings[1:]]
        self.assertEqual(
            needs, ["src/a.rs:2:  needs src/b.rs for crate::b::B", "src/b.rs:1:  needs src/a.rs for crate::a::A"]
        )

    def test_through_a_reexport(self) -> None:
        files = {
            "lib": "mod a;\nmod b;\npub use self::{a::A, b::B as C};\n",
            "a": "use crate::C;\npub struct A(C);\n",
            "b": "use crate::A;\npub struct B(A);\n",
        }
        self.assertEqual(self.circles(files), [["a", "b"]])

    def test_a_reexport_is_not_the_root(self) -> None:
        # The root needs `b`, but `a`, which gets it through the root, does not need the root.
        files = {
            "lib": "mod a;\npub use self::a::A;\npub fn f() -> A { a::make() }\n",
            "a": "mod b;\npub use self::b::B;\npub struct A;\npub fn make() -> A { A }\n",
            "a/b": "pub struct B;\n",
        }
        self.assertEqual(self.circles(files), [])
        files["a/b"] = "use crate::A;\npub struct B(A);\n"
        self.assertEqual(self.circles(files), [])

    def test_through_two_reexports_and_a_glob(self) -> None:
        files = {
            "lib": "mod m;\nmod c;\npub use m::*;\n",
            "m": "mod a;\nmod b;\npub(crate) use a::A;\npub use self::b::*;\n",
            "m/a": "use crate::B;\npub struct A;\n",
            "m/b": "use crate::A;\npub struct B;\n",
            "c": "use crate::{A, B};\n",
        }
        self.assertEqual(self.circles(files), [["m/a", "m/b"]])

    def test_a_function_named_as_its_module(self) -> None:
        files = {
            "lib": "mod m;\nmod c;\n",
            "m": "mod wrap;\npub use wrap::wrap;\n",
            "m/wrap": "use crate::c::C;\npub fn wrap() {}\n",
            "c": "use crate::m::wrap;\npub struct C;\n",
        }
        self.assertEqual(self.circles(files), [["c", "m/wrap"]])

    def test_child_and_parent(self) -> None:
        for parent, child, there in (
            # Each needs the other.
            ("mod b;\nuse b::B;\npub struct A;\n", "use super::A;\npub struct B;\n", True),
            ("mod b;\nuse self::b::B;\npub struct A;\n", "use crate::a::A;\npub struct B;\n", True),
            ("mod b;\npub struct A;\nfn f() { b::g(); }\n", "use super::A;\npub fn g() {}\n", True),
            ("mod b;\npub struct A;\nfn f() { b::g(); }\n", "pub fn g() -> super::A {}\n", True),
            # `mod` alone is no need, nor is passing a name on.
            ("mod b;\npub struct A;\n", "use super::A;\npub struct B;\n", False),
            ("mod b;\npub use b::B;\npub struct A;\n", "use super::A;\npub struct B;\n", False),
            # A name that is passed on and used is one.
            ("mod b;\npub use b::B;\npub struct A(B);\n", "use super::A;\npub struct B;\n", True),
            # Only one of them needs the other.
            ("mod b;\nuse b::B;\npub struct A;\n", "pub struct B;\n", False),
        ):
            with self.subTest(parent=parent, child=child):
                files = {"lib": "mod a;\n", "a": parent, "a/b": child}
                self.assertEqual(self.circles(files), [["a", "a/b"]] if there else [])

    def test_passing_on_counts_in_its_own_row(self) -> None:
        files = {
            "lib": "mod a;\n",
            "a": "mod b;\npub use b::B;\npub struct A;\n",
            "a/b": "use super::A;\npub struct B;\n",
        }
        self.assertEqual(self.circles(files, "re-export"), [["a", "a/b"]])

    def test_nested_braces_and_new_names(self) -> None:
        for use in (
            "use crate::{x::{self, y::{Y as Z}}, b::{self as other, B}};",
            "use crate::{b::{B as _}};",
            "pub(crate) use crate::b::{\n    B,\n};\nfn f(b: B) {}",
            "use super::b::{self, B};",
            "use crate::b::{self};\nfn f() { b::g(); }",
            "fn f() { use crate::{b::g}; g(); }",
            "use {crate::b::B};",
            "use crate::b::*;\nfn f(b: B) {}",
            "use r#crate::x;\nuse crate::r#b::B;",
        ):
            with self.subTest(use):
                files = {
                    "lib": "mod a;\nmod b;\n",
                    "a": f"{use}\npub struct A;\n",
                    "b": "use crate::a::A;\npub struct B;\npub fn g() {}\n",
                }
                self.assertEqual(self.circles(files), [["a", "b"]])

    def test_a_glob_needs_what_is_used(self) -> None:
        for code in ("", "fn f(x: X) { x.g(); }", "// B\n"):
            files = {
                "lib": "mod a;\nmod b;\n",
                "a": f"use crate::b::*;\npub struct A;\n{code}",
                "b": "use crate::a::A;\npub struct B;\npub fn g() {}\n",
            }
            self.assertEqual(self.circles(files), [])

    def test_a_module_alone_needs_what_is_used_of_it(self) -> None:
        files = {
            "lib": "mod a;\nmod b;\n",
            "a": "use crate::b;\npub struct A;\nfn f() { b::g(); }\n",
            "b": "use crate::a::A;\npub fn g() {}\n",
        }
        self.assertEqual(self.circles(files), [["a", "b"]])
        files["a"] = "use crate::b as other;\npub struct A;\nfn f() { other::g(); }\n"
        self.assertEqual(self.circles(files), [["a", "b"]])

    def test_inline_paths(self) -> None:
        for code in (
            "fn f() { crate::b::g(); }",
            "fn f(b: crate::b::B) {}",
            "impl crate::b::T for A {}",
            "fn f() { super::b::g(); }",
            "fn f() { <A as crate::b::T>::g(); }",
            "fn f() { use crate::b::g; g(); }",
            "macro_rules! m { () => { $crate::b::g() } }",
            "mod inner { fn f() { crate::b::g(); } }",
            "mod inner { use super::super::b::B; }",
            "struct S {\n#[cfg(test)]\na: u8,\nb: crate::b::B,\n}",
        ):
            with self.subTest(code):
                files = {
                    "lib": "mod a;\nmod b;\n",
                    "a": f"pub struct A;\n{code}\n",
                    "b": "use crate::a::A;\npub trait T {}\npub struct B;\npub fn g() {}\n",
                }
                self.assertEqual(self.circles(files), [["a", "b"]])

    def test_what_is_no_need(self) -> None:
        for code in (
            "/// See [`B`](crate::b::B).\nfn f() {}",
            "//! [`crate::b::B`]",
            "// crate::b::B",
            "/* crate::b::B */",
            'fn f() { g("crate::b::B"); }',
            "#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}",
            "#[cfg(test)]\nuse crate::b::B;",
            "#[cfg(all(test, unix))]\nfn f() { crate::b::g(); }",
            "#[test]\nfn f() { crate::b::g(); }",
            "pub(in crate::b) fn f() {}",
            "use std::b::B;",
            "fn f() { x.b(); }",
            '#[doc = "crate::b::B"]\nfn f() {}',
            "#[cfg(test)]\nconst X: u8 = if true { 1 } else { crate::b::g() };",
            "#[cfg(test)]\nfn f<A, B>() { crate::b::g(); }",
            "struct S { pub(in crate::b) x: u8 }",
            "#![cfg(test)]\nuse crate::b::B;",
        ):
            with self.subTest(code):
                files = {
                    "lib": "mod a;\nmod b;\n",
                    "a": f"{code}\npub struct A;\n",
                    "b": "use crate::a::A;\npub struct B;\npub fn g() {}\n",
                }
                self.assertEqual(self.circles(files), [])

    def test_a_file_of_tests_is_none(self) -> None:
        files = {
            "lib": "mod a;\n",
            "a": "pub struct A;\n#[cfg(test)]\nmod tests;\n",
            "a/tests": "use super::*;\nmod more;\n",
            "a/tests/more": "use super::*;\n",
        }
        self.assertEqual(self.circles(files), [])

    def test_files_named_mod(self) -> None:
        files = {
            "lib": "mod a;\n",
            "a/mod": "mod b;\nuse b::B;\npub struct A;\n",
            "a/b": "use super::A;\npub struct B;\n",
        }
        self.assertEqual(self.circles(files), [["a/b", "a/mod"]])

    def test_a_program_is_a_crate_of_its_own(self) -> None:
        files = {
            "lib": "mod a;\npub struct L;\n",
            "a": "pub struct A;\n",
            "bin/p/main": "mod a;\nuse a::run;\npub fn runtime() {}\n",
            "bin/p/a": "use crate::runtime;\npub fn run() {}\n",
        }
        self.assertEqual(self.circles(files), [["bin/p/a", "bin/p/main"]])

    def test_macros(self) -> None:
        files = {
            "lib": "mod a;\nmod b;\n",
            "a": "macro_rules! make { () => { crate::b::B } }\npub(crate) use make;\n",
            "b": "use crate::a::make;\npub struct B;\nfn f() { make!(); }\n",
        }
        self.assertEqual(self.circles(files), [["a", "b"]])

    def test_a_name_that_a_macro_makes(self) -> None:
        files = {
            "lib": "mod a;\nmod b;\n",
            "a": "use crate::b::B;\nmake! { A }\n",
            "b": "use crate::a::A;\npub struct B;\n",
        }
        self.assertEqual(self.circles(files), [["a", "b"]])

    def test_what_another_file_passes_on_from_outside(self) -> None:
        files = {
            "lib": "mod a;\npub use std::sync::Arc;\nfn f() { a::g(); }\n",
            "a": "use crate::Arc;\npub fn g() {}\n",
        }
        self.assertEqual(self.circles(files), [["a", "lib"]])
        files = {
            "lib": "mod a;\nmod sync;\n",
            "sync": "pub use std::sync::Arc;\nuse crate::a::A;\n",
            "a": "use crate::sync::Arc;\npub struct A;\n",
        }
        self.assertEqual(self.circles(files), [["a", "sync"]])

    def test_methods_in_another_file(self) -> None:
        files = {
            "lib": "mod a;\n",
            "a": "mod b;\npub struct A<T>(T);\nimpl A<u8> { fn f(&self) { self.far(); } }\n",
            "a/b": "use super::A;\nimpl<T: Fn(&u8) -> u8> A<T> { pub fn far(&self) {} }\n",
        }
        self.assertEqual(self.circles(files), [["a", "a/b"]])
        self.assertEqual(self.again()["spread"].count, 1)
        # The name may be another type's method.
        files["lib"] = "mod a;\nmod c;\n"
        files["c"] = "pub struct C;\nimpl C { pub fn far(&self) {} }\n"
        self.assertEqual(self.circles(files), [])
        files["c"] = ""
        # Nobody in the type's file calls it.
        files["a"] = "mod b;\npub struct A<T>(T);\nimpl A<u8> { fn f(&self) {} }\n"
        self.assertEqual(self.circles(files), [])

    def test_a_trait_for_a_type_is_no_method_of_it(self) -> None:
        files = {
            "lib": "mod a;\n",
            "a": "mod b;\npub struct A;\nfn f(a: A) { a.fmt(); }\n",
            "a/b": "use super::A;\nimpl std::fmt::Display for A { fn fmt(&self) {} }\n",
        }
        self.assertEqual(self.circles(files), [])
        self.assertEqual(self.again()["spread"].count, 0)
        files = {
            "lib": "mod a;\nmod t;\n",
            "t": "pub trait T { fn t(&self); }\n",
            "a": "use crate::t::T;\nstruct A;\nimpl T for A {}\n",
        }
        self.assertEqual(self.circles(files), [])
        self.assertEqual(self.again()["spread"].count, 0)


class Script(Case):
    """The command, as people run it."""

    BAD = {
        "src/lib.rs": "mod a;\nmod b;\n" + function(61),
        "src/a.rs": "use crate::b::B;\npub struct A(B);\n" + "const A: u8 = 1;\n" * 700,
        "src/b.rs": "use crate::a::A;\npub struct B(A);\n",
        "README.md": "What is tokenised on a card is one row a text.\n",
    }
    RULES = ("a-for-per", "clause", "word", "spelling", "function", "file", "circle")

    def test_a_tree_without_fault(self) -> None:
        self.tree({"README.md": FILLER, "src/lib.rs": f"//! {FILLER}\n{function(60)}"})
        done = self.run_script("--check")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertEqual(self.run_script("--list").stdout, "")

    def test_each_fault_is_named(self) -> None:
        self.tree(self.BAD)
        done = self.run_script("--check")
        self.assertEqual(done.returncode, 1)
        for said in (
            "README.md:1: a-for-per: ",
            "README.md:1: clause: ",
            "README.md:1: word: ",
            "README.md:1: spelling: tokenised",
            "src/lib.rs:3: function: f: 61 lines",
            "src/a.rs:1: file: 702 lines",
            "a circle of 2 files: src/a.rs, src/b.rs",
            "the limit is 0.1",
            "the limit is 0.5",
            "the limit is 650",
        ):
            self.assertIn(said, done.stderr)

    def test_each_fault_alone_fails(self) -> None:
        alone = {
            "a-for-per": {"README.md": "One row a text.\n"},
            "clause": {"README.md": "What it is.\n"},
            "word": {"README.md": "It runs on a card.\n"},
            "spelling": {"README.md": "It is tokenised.\n"},
            "function": {"src/lib.rs": function(61)},
            "file": {"src/lib.rs": "const A: u8 = 1;\n" * 651},
            "circle": {name: self.BAD[name][:40] for name in ("src/a.rs", "src/b.rs")}
            | {"src/lib.rs": "mod a;\nmod b;\n"},
        }
        self.assertEqual(tuple(alone), self.RULES)
        for rule, files in alone.items():
            with self.subTest(rule), tempfile.TemporaryDirectory() as folder:
                self.root = pathlib.Path(folder)
                self.tree(files)
                done = self.run_script("--check")
                self.assertEqual(done.returncode, 1)
                first = [line for line in done.stderr.splitlines() if line.startswith("house: ")]
                self.assertEqual(len(first), 1, done.stderr)
                self.assertIn(f": {rule}: ", done.stderr)

    def test_the_list(self) -> None:
        self.tree(self.BAD)
        rules = {line.split(": ")[1] for line in self.run_script("--list").stdout.splitlines()}
        self.assertEqual(set(self.RULES), rules)
        self.assertIn("src/a.rs:1: re-export:", self.run_script("--list", "re-export").stdout)
        self.assertEqual(
            self.run_script("--list", "spelling").stdout, "README.md:1: spelling: tokenised (write: tokenized)\n"
        )

    def test_the_table(self) -> None:
        self.tree(self.BAD)
        done = self.run_script()
        self.assertEqual(done.returncode, 0)
        over = [line for line in done.stdout.splitlines() if line.endswith(" over")]
        self.assertEqual(len(over), len(self.RULES))
        self.assertIn("61  src/lib.rs:3: f", done.stdout)

    def test_nobody_reads_to_the_end(self) -> None:
        self.tree({"README.md": "It is tokenised.\n" * 20000})
        command = f"'{sys.executable}' '{SCRIPT}' --root '{self.root}' --list | head -n 1"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        self.assertEqual((done.stdout, done.stderr), ("README.md:1: spelling: tokenised (write: tokenized)\n", ""))

    def test_wrong_use_is_told(self) -> None:
        done = self.run_script("--check")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--root", done.stderr)
        self.tree({})
        done = self.run_script("--list", "clauses")
        self.assertEqual(done.returncode, 2)
        self.assertIn("a-for-per", done.stderr)


if __name__ == "__main__":
    unittest.main()
