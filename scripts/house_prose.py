"""Finds what is not plain English, for scripts/house. Each rule takes a paragraph and yields offset and text."""

import re
from typing import Iterator

from house_text import CODE, Paragraph

# ---- `a row a text` --------------------------------------------------------------------------------------------------

# Nouns for things that are counted. No verb has these forms, so that nothing else needs to be near them.
MEASURED = (
    "allocations? bytes? cents? characters? components? dimensions? dollars? entry|entries indices texts? keys? "
    "kB|KB|KiB|MB|MiB|GB|GiB lines? microseconds? milliseconds? ms|ns|µs results? rows? sessions? seconds? tokens? "
    "vectors? words?"
)
# Nouns that are verbs too (`calls a model`), so that a number or the like must stand before them.
VERBS_TOO = (
    "attempts? batch|batches calls? chunks? copy|copies documents? errors? hash|hashes hits? index|indexes locks? "
    "looks? messages? misses objects? passes queries|query reads? requests? retries|retry spans? threads? timers? "
    "tries|try turns? values? waits? writes?"
)
# Units, after `a`. A time is no subject of a sentence, the others may be: `the tokens a batch holds`.
PER_TIME = "second|minute|hour|day|week|month|year"
PER_THING = (
    "batch|call|caller|card|chunk|collection|component|core|document|entry|file|GPU|hit|index|key|layer|line|machine|"
    "message|miss|model|name|number|page|process|provider|query|reply|request|row|run|session|space|step|store|text|"
    "thread|token|try|turn|value|vector|window|word|write"
)
AMOUNT = (
    r"(?:\d+(?:[.,]\d+)*(?:\s?million)?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|hundreds?|"
    r"thousands?|dozens|millions?|many|few|several|all|no|most|fewer|more|single|half)"
)
# The sentence ends here or goes on without a verb.
FOLLOWS = (
    r"(?=\s*(?:$|[^\w\s`]|(?:and|or|at(?!\sa\stime)|in|on|by|from|for|with|without|of|to|that|which|who|than|as|where|"
    r"when|while|if|so|but|then|too|here|there|beside|besides|over|under|only|instead|plus|until|unless|because|before|"
    r"after|now|are|were|each|already)\b))"
)
FOLLOWS_TIME = FOLLOWS.replace("|are|", "|is|was|can|may|will|must|are|")


def words_of(words: str) -> str:
    return "|".join(words.split())


# The second half first, because it is rare: `a call`.
PER = re.compile(rf"\s+an?\s+(?:(?P<time>{PER_TIME})\b{FOLLOWS_TIME}|(?P<thing>{PER_THING})\b{FOLLOWS})", re.IGNORECASE)
# The first half ends where the second begins.
COUNT = re.compile(
    rf"""
    (?:
        # `one span a call`, `300,000 tokens a request`, `a short lock a call`, `requests and tokens a minute`
        (?P<measured>\b(?:{words_of(MEASURED)}|{words_of(VERBS_TOO)}))
      | (?P<amount>\b{AMOUNT}|\bmuch|{CODE})   # `ten a second`, `so much a minute`
      | (?P<times>\bonce|\btwice)              # `once a text`; `once a day` is what everybody says
      | (?P<rate>/s)                           # `430,000 hits/s a core`
      | (?P<inside>\b{AMOUNT}\s+\w+\s+(?:at|into)\s+the\s+\w+)   # `two looks at the clock a call`
    )$
    """,
    re.VERBOSE | re.IGNORECASE,
)
# The longest first half in characters, and the longest text before it that the rules look at.
REACH = 80
FOUR_WORDS = re.compile(r"(?:[^\s.;:]+\s+){0,4}$")
VERB_TOO = re.compile(words_of(VERBS_TOO), re.IGNORECASE)
# `two short locks a call` counts, `one caller requests a value` does not: no noun may stand between.
QUALITY = (
    r"(?:(?:\w+-[\w-]+|(?-i:[A-Z]{2,})|short|long|small|large|full|extra|further|more|other|separate|distinct|concurrent|"
    r"parallel)\s+)?"
)
ONE = r"\b(?:an?|one|no|single|another|each|every|per|\d[\d,.]*)\s+"
NUMBER_BEFORE = re.compile(rf"(?:\b(?:{AMOUNT}|of)|{CODE})\s+{QUALITY}$", re.IGNORECASE)
ONE_BEFORE = re.compile(rf"{ONE}{QUALITY}$", re.IGNORECASE)
# `one dense vector a text`: a noun that is no verb may have any word before it.
ONE_NEAR = re.compile(rf"{ONE}(?:[\w-]+\s+)?$", re.IGNORECASE)
# `gives a caller a row` has two objects, nothing is counted. A part and its whole are counted: `gives a row a text`.
GIVES = re.compile(
    r"\b(?:gives?|gave|given|giving|hand(?:s|ed|ing)?|lends?|lent|sends?|sent|grants?|makes?|made|making|tells?|told|"
    r"shows?|shown|owes?|costs?|gets?|names?|calls?|called|calling)\s+"
    r"(?:(?:an?|the|its|their|each|every|all|other|this|that)\s+)?$",
    re.IGNORECASE,
)
PARTS = {
    ("row", "text"), ("vector", "text"), ("result", "text"), ("key", "text"), ("row", "token"), ("vector", "token"),
    ("session", "thread"), ("session", "core"), ("thread", "core"),
}  # fmt: skip


def a_for_per(paragraph: Paragraph) -> Iterator[tuple[int, str]]:
    """`a row a text` instead of `one row per text`."""
    for per in PER.finditer(paragraph.text):
        count = COUNT.search(paragraph.text, max(per.start() - REACH, 0), per.start())
        if count:
            words = FOUR_WORDS.search(paragraph.text, max(count.start() - REACH, 0), count.start())
            before = words.group() if words else ""
            if counts(before, count, per):
                yield count.start(), (before + count.group() + per.group()).strip()


def counts(before: str, count: re.Match[str], per: re.Match[str]) -> bool:
    """True if something is counted, and False if the words only look so."""
    time = per.group("time")
    if count.group("times"):
        return not time
    if amount := count.group("amount"):
        if amount == CODE:
            # A name in code may be a verb: `embed` a batch.
            return bool(time)
        # `half a second` and `no more a question` count nothing.
        return amount.lower() not in ("half", "all", "no", "most", "more", "fewer", "single", "many")
    if count.group("rate") or count.group("inside"):
        return True
    measured = count.group("measured").lower()
    thing = (per.group("thing") or "").lower()
    if GIVES.search(before) and not time:
        return (measured, thing) in PARTS
    verb_too = VERB_TOO.fullmatch(measured)
    if measured == "text":
        return before.endswith("of ") or bool(ONE_NEAR.search(before))
    if measured.endswith("s") or measured.endswith("b") or measured == "indices":
        # `requests a minute` needs no number, as no verb has a time for its object.
        return bool(time or not verb_too or NUMBER_BEFORE.search(before))
    return bool((ONE_BEFORE if verb_too else ONE_NEAR).search(before))


# ---- `What does not fit is ...` --------------------------------------------------------------------------------------

# Not after `e.g.` and the like, nor inside a number.
SENTENCE_END = re.compile(r"(?<!\be\.g\.)(?<!\bi\.e\.)(?<=[.!?])[\"')»”]*\s+(?=[\"'(“«]*(?:[A-Z0-9]|``))")
CLAUSE_OPENING = re.compile(
    r"(?:(?:and|but|so|or)\s+)?"
    r"(?:(?:of|to|for|by|with|in|from|at|on)\s+(?=what|who))?"
    r"(?:(?:what|who|whom|whose|whoever|whatever|whichever|where|wherever)\b"
    r"|(?:(?:of|to|for|by|with|in|from|at|on)\s+)?which\b"
    r"|that\s+(?:an?|the|it|they|there|no|each|every)\b)",
    re.IGNORECASE,
)
MANNER_OPENING = re.compile(r"(?:how(?!\s+to\b)|why|whether)\b", re.IGNORECASE)
IN_WHICH_CASE = re.compile(r"in\s+which\s+case\b", re.IGNORECASE)


def sentences(paragraph: Paragraph) -> Iterator[tuple[int, str]]:
    """The sentences of a paragraph and where they begin."""
    start = 0
    for end in [*SENTENCE_END.finditer(paragraph.text), None]:
        sentence = paragraph.text[start : end.start() if end else None]
        opening = len(sentence) - len(sentence.lstrip(" \"'(“«"))
        if sentence.strip():
            yield start + opening, sentence[opening:].rstrip()
        start = end.end() if end else 0


def openings(paragraph: Paragraph, pattern: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    if paragraph.kind == "heading":
        return
    for start, sentence in sentences(paragraph):
        # A message may begin with a small letter. A cell or an item that begins so is no sentence.
        whole = paragraph.kind == "message" or sentence[:1].isupper()
        if whole and pattern.match(sentence) and not sentence.rstrip("\"')”»").endswith("?"):
            if not IN_WHICH_CASE.match(sentence):
                yield start, sentence


def clause_for_noun(paragraph: Paragraph) -> Iterator[tuple[int, str]]:
    """A sentence whose first words are a clause in the place of a noun, or a `Where` in the place of an `If`."""
    return openings(paragraph, CLAUSE_OPENING)


def manner_clause(paragraph: Paragraph) -> Iterator[tuple[int, str]]:
    """A sentence that begins with How, Why or Whether. This is usual for a flag or a setting, so it has no limit."""
    return openings(paragraph, MANNER_OPENING)


# ---- words -----------------------------------------------------------------------------------------------------------

# Patterns of words, each with a better word.
INSTEAD = (
    (r"(?<!model )(?<!index )\bcards?\b", "GPU"),
    (r"\b(?:brought|brings?|bringing) home\b", "checkpoint"),
    (r"\banew\b", "again"),
    (r"\bbef[ae]ll?s?\b", "happened to"),
    (r"\bfor who\b", "for those that"),
)
INSTEAD_PATTERNS = tuple((re.compile(pattern, re.IGNORECASE), better) for pattern, better in INSTEAD)


def odd_words(paragraph: Paragraph) -> Iterator[tuple[int, str]]:
    """Words that the field has another word for, and forms that are no English."""
    for pattern, better in INSTEAD_PATTERNS:
        for match in pattern.finditer(paragraph.text):
            yield match.start(), f"{match.group()} (write: {better})"


# ---- -is- for -iz- ---------------------------------------------------------------------------------------------------

# The beginnings of words with both forms, without their endings, so that the rule does not find this file.
IZE_STEMS = (
    "alphabet anonym apolog atom author canonical capital categor central character computer container critic "
    "crystall custom digit discret econom emphas equal external factor familiar final formal general harmon human "
    "hypothes ideal immun initial internal international item legal linear local maxim material mechan memor minim "
    "mobil modern modular monopol national neutral normal object operational optim organ oxid parallel parametr "
    "parameter parenthes penal personal plural popular prior priorit privat public quant random rational real "
    "recogn regular sanit scrutin sensit serial social special stabil standard summar symbol sympath synchron "
    "synthes systemat theor token trivial util vector verbal victim virtual visual"
).split()
ISE = re.compile(r"is(?:e|ed|er|ers|es|ing|able|ability|ation|ations|ational)(?![a-z])", re.IGNORECASE)
# The last word before the ending. Names join words with an underscore or a capital letter.
STEM = re.compile(r"(?:[A-Z]?[a-z]+|[A-Z]+)$")
PREFIXES = ("", "de", "dis", "mis", "non", "over", "pre", "re", "un", "under")
STEMS = frozenset(prefix + stem for prefix in PREFIXES for stem in IZE_STEMS)


def british_spellings(text: str) -> Iterator[tuple[int, str, str]]:
    """Words of text or code, names included, that are spelled with -is- and have a form with -iz-: offset and both."""
    for match in ISE.finditer(text):
        stem = STEM.search(text, max(match.start() - 30, 0), match.start())
        if stem and stem.group().lower() in STEMS:
            ending = match.group()
            better = ending[0] + ("Z" if ending[1] == "S" else "z") + ending[2:]
            yield stem.start(), stem.group() + ending, stem.group() + better
