"""The texts of the golden vectors: ordinary ones, and those that tokenizers and loaders get wrong."""

import random

# Texts that say themselves what they test. Characters that cannot be seen are written as escapes.
PLAIN = [
    # ---- as short as it gets
    ("letter-lower", "q"),
    ("letter-upper", "Q"),
    ("word", "lighthouse"),
    ("word-rare", "thixotropic"),
    ("word-capital", "Lighthouse"),
    ("punctuation-dots", "..."),
    ("punctuation-mixed", "?! -- ;:,' \"\" ()[]{} <> /\\ |~^`@#$%&*_+="),
    ("digits", "7"),
    ("digits-long", "31415926535897932384626433832795"),
    ("digits-mixed", "v2.11.0-rc3 costs 1,299.50 at 07:45 on 2031-02-28"),

    # ---- queries
    ("query-backup", "how do I restore a backup onto another server"),
    ("query-timeout", "why does the upload time out after thirty seconds?"),
    ("query-keywords", "rotate signing key without downtime"),
    ("query-shouted", "PRINTER OFFLINE AGAIN"),
    ("query-typo", "wich setting contols the chache sise"),
    ("query-twin-1", "cheapest way to keep old logs"),
    ("query-twin-2", "cheapest way to keep old logs"),

    # ---- documentation
    ("doc-cache",
     "The cache keeps the results of earlier requests in memory. Each entry has a time to live, given in seconds, "
     "and is dropped when that time is over or when the memory limit is reached, whichever comes first. Entries "
     "that were read lately are kept longest. Set `cache.limit` to zero to turn the cache off altogether."),
    ("doc-retry",
     "When a request fails because the server is busy, the client waits and tries again. The first wait is a quarter "
     "of a second, and every further wait is twice as long as the one before, up to half a minute. A little chance "
     "is added to each wait, so that many clients which failed together do not come back together. Requests that "
     "failed for a reason which will not go away, such as a wrong password, are never repeated."),
    ("doc-index",
     "Building the index happens in two passes. The first pass reads every record once and counts how often each key "
     "occurs; from these counts it decides how large each bucket has to be. The second pass reads the records again "
     "and puts each into its bucket. Because the sizes are known by then, no bucket ever has to grow, and the index "
     "can be written to disk front to back without seeking. On a spinning disk this is about four times as fast as "
     "inserting the records one by one. The price is that the records have to be readable twice: a pipe will not do. "
     "If the machine loses power in the middle of the second pass, the half-written file is found at the next start "
     "by its missing footer and is removed; the records themselves are untouched."),
    ("doc-permissions",
     "Every folder belongs to one group. Members of the group may read and write; everybody else may read if the "
     "folder is marked as open and may do nothing otherwise. To hand a folder over, change its group rather than the "
     "permissions of each file in it. Moving a file between folders gives it the group of the folder it arrives in."),
    ("doc-release-notes",
     "Version 4.2 brings three changes that need your attention. First, the old configuration format is no longer "
     "read; run the converter once before you upgrade. Second, the metrics endpoint has moved to its own port, which "
     "firewalls must let through. Third, timestamps are now written in UTC with milliseconds. Programs that cut "
     "timestamps at fixed columns will have to be adapted. Everything else is compatible with version 4.1, and going "
     "back is possible as long as no new user was created in between."),
    ("doc-recipe",
     "Soak the beans overnight. The next day, fry two onions in olive oil until they are golden, add garlic, cumin "
     "and a spoon of tomato paste, then the drained beans and enough water to cover them by a finger. Simmer for an "
     "hour and a half. Salt only at the end, because salted beans stay hard."),
    ("doc-law",
     "The tenant shall give notice of defects without undue delay. If the landlord does not remedy a defect within a "
     "reasonable time, the tenant may have it remedied at the landlord's expense, or reduce the rent in proportion "
     "to the loss of use, until the defect is remedied."),
    ("doc-science",
     "Light that falls on the leaf is caught by pigments, and its energy splits water into oxygen, protons and "
     "electrons. The oxygen leaves the leaf; the electrons pass along a chain of proteins and pump protons across a "
     "membrane. As the protons flow back they drive the enzyme that makes the cell's fuel."),
    ("doc-support",
     "Hello, since Tuesday our two warehouse scanners lose their connection every few minutes. The office laptops "
     "on the same network are fine. We have restarted the access point twice and moved it closer, with no change. "
     "Could this be the update from last week? Kind regards, Marta"),
    ("doc-heading", "# Installation\n\n## Requirements\n\nA 64-bit system and 2 GB of memory.\n\n## Steps\n\n1. Unpack\n2. Run `setup`\n"),

    # ---- code and the like
    ("code-rust",
     "pub fn mean(values: &[f32]) -> Option<f32> {\n    if values.is_empty() {\n        return None;\n    }\n"
     "    Some(values.iter().sum::<f32>() / values.len() as f32)\n}\n"),
    ("code-python",
     "def chunks(items, size):\n    \"\"\"Yields lists of at most `size` items.\"\"\"\n    for start in range(0, len(items), size):\n"
     "        yield items[start:start + size]\n"),
    ("code-c",
     "static int parse_port(const char *s, uint16_t *out) {\n\tchar *end;\n\tlong n = strtol(s, &end, 10);\n"
     "\tif (end == s || *end || n < 1 || n > 65535) return -1;\n\t*out = (uint16_t)n;\n\treturn 0;\n}\n"),
    ("code-html", "<ul class=\"menu\">\n  <li><a href=\"/start?lang=en&amp;p=1\">Start</a></li>\n  <li hidden>&nbsp;</li>\n</ul>"),
    ("code-json", "{\"id\": 17, \"tags\": [\"red\", \"draft\"], \"owner\": null, \"price\": -1.5e-3, \"path\": \"C:\\\\temp\\\\a.txt\"}"),
    ("code-shell", "find . -name '*.log' -mtime +30 -print0 | xargs -0 -r gzip -9 && echo \"done: $?\" >&2"),
    ("code-sql", "SELECT c.name, COUNT(*) AS n FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.paid = 0 GROUP BY c.name HAVING COUNT(*) > 3 ORDER BY n DESC;"),
    ("code-regex", "^(?P<year>\\d{4})-(?:0[1-9]|1[0-2])-(?P<day>[0-3]\\d)(?=T|$)"),
    ("code-camel", "getHTTPResponseCode snake_case_name kebab-case-name SCREAMING_SNAKE __dunder__ x86_64"),
    ("url", "https://docs.example.org/guide/setup.html?version=3&tab=linux#step-2"),
    ("url-image", "https://pictures.example.org/harbour.jpg"),
    ("path", "/usr/local/share/fonts/../icons/app@2x.png"),
    ("email", "Write to <first.last+list@mail.example.com> before 5 p.m."),
    ("base64", "TWFueSBoYW5kcyBtYWtlIGxpZ2h0IHdvcmsu/+8QzZ9aK0xVb3JlbQ=="),
    ("hex", "0xDEADBEEF 9f86d081884c7d659a2feaa0c55ad015 c0:ff:ee:00:12:34"),
    ("markdown-table", "| Option | Default | Meaning |\n|:-------|--------:|---------|\n| `depth` | 3 | how far to look |\n| `strict` | no | stop at the first error |\n"),
    ("csv", "name;size;changed\r\nreport.txt;1024;2030-06-01\r\n\"a;b\".txt;0;\r\n"),

    # ---- nothing but whitespace, or what looks like it
    ("blank-spaces", "     "),
    ("blank-tabs-newlines", "\t\n\r\n\t \n"),
    ("blank-nbsp", "\u00a0\u00a0\u00a0"),
    ("blank-ideographic", "\u3000\u3000"),
    ("blank-zero-width", "\u200b\u200b"),
    ("blank-mixed", " \u00a0\t\u2003\u3000\n\u200b\u202f\u2028"),

    # ---- control characters and other unwanted ones
    ("nul-alone", "\x00"),
    ("nul-inside", "har\x00bour li\x00ghts"),
    ("controls", "one\x01two\x07three\x1bfour\x7ffive\x85six\x9fseven"),
    ("replacement", "broken \ufffd bytes \ufffd\ufffd here"),
    ("bom", "\ufeffThe file began with a byte order mark"),
    ("private-use", "icon \ue000 and \uf8ff and \U000f0000 glyphs"),
    ("soft-hyphen", "hy\u00adphen\u00adation is in\u00advisible"),
    ("zero-width-inside", "zero\u200bwidth \u200cnon\u200djoiner word\u2060joiner"),
    ("line-separator", "first line\u2028second line\u2029third paragraph"),
    ("bidi-controls", "left \u202eright to left\u202c left \u2067isolated\u2069"),
    ("noncharacter", "odd \ufdd0 points \uffff end"),
    ("unassigned", "reserved \u0378 and \U0001fbff points"),
    ("tag-characters", "waving \U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f flag"),

    # ---- emoji
    ("emoji-only", "\U0001f680\U0001f525"),
    ("emoji-zwj", "our family \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 moved \u2764\ufe0f"),
    ("emoji-flags", "\U0001f1e9\U0001f1ea versus \U0001f1e7\U0001f1f7 tonight"),
    ("emoji-skin", "thanks \U0001f44d\U0001f3fd everyone \U0001f389"),

    # ---- scripts
    ("cjk-mixed", "我们的API支持批量请求，每次最多100条。See the 文档 for details."),
    ("cjk-traditional", "圖書館每天早上九點開門，星期日休息。"),
    ("cjk-rare", "\U00020000\U0002a6d6 extension"),
    ("japanese", "駅の近くに新しいパン屋ができました。ﾊﾝｶｸ文字とガギグゲゴ。"),
    ("korean-nfc", "오늘은 날씨가 좋아서 산책을 했어요."),
    ("korean-nfd", "NFD:오늘은 날씨가 좋아서 산책을 했어요."),
    ("arabic", "ذهب الطلاب إلى المكتبة لقراءة الكتب الجديدة. مَرْحَبًا"),
    ("hebrew", "הספרייה פתוחה כל יום עד השעה שמונה. שָׁלוֹם"),
    ("thai", "วันนี้ร้านหนังสือปิดเวลาหกโมงเย็น"),
    ("hindi", "आज बाज़ार में ताज़े फल और सब्ज़ियाँ मिलती हैं।"),
    ("vietnamese", "Hôm nay trời đẹp, chúng tôi đi dạo quanh hồ."),
    ("russian", "Ёжик шёл по лесу и нёс мёд; Й и й."),
    ("greek-sigma", "ΟΔΥΣΣΕΥΣ Ὀδυσσεύς ΣΑΣ σας ΆΈΉ"),
    ("turkish-i", "İstanbul ISPARTA ılık iğne DİYARBAKIR"),
    ("german-sharp-s", "Straße STRASSE STRAẞE Fußgänger Öl Ärger"),
    ("georgian", "თბილისი ᲗᲑᲘᲚᲘᲡᲘ"),
    ("accents-nfc", "NFC:crème brûlée, naïve façade, Ångström, piñata"),
    ("accents-nfd", "NFD:crème brûlée, naïve façade, Ångström, piñata"),
    ("combining-alone", "\u0301"),
    ("combining-many", "z\u0300\u0301\u0302\u0303\u0304a\u0335\u0336l\u0316\u0317\u0318g\u0489o"),
    ("ligatures", "eﬃcient ﬂow of oﬀers, Æon œuvre ĳs ǆ"),
    ("fullwidth", "ＦＵＬＬ　ｗｉｄｔｈ　１２３！（ｏｋ）"),
    ("math", "∀x∈ℝ: ∑ᵢ xᵢ² ≥ 0, ∫₀^∞ e^{-x}dx = 1 ⇒ √2 ≈ 1.414 ± 𝟘 𝒜𝓑 𝔠"),
    ("roman-numerals", "Ⅳ Ⅻ ⅷ MCMXCIV"),
    ("superscripts", "E = mc², 10⁻⁹ m³, H₂O, 1ˢᵗ ½ ¼ №7 ™ ℃ ㎏"),
    ("currency", "€5 £6 ¥700 ₹80 ₿0.1 ¢¤"),
    ("quotes", "“Curly” ‘single’ «guillemets» „low“ ‹angle› — dash – dash… ellipsis·dot•bullet"),

    # ---- what the tokenizer itself uses
    ("special-tokens", "[CLS] and [SEP] with [MASK], [PAD] and [UNK] inside"),
    ("special-tokens-glued", "a[SEP]b[CLS]c [sep] [Mask] [ PAD ] [UNK][UNK]"),
    ("word-piece-mark", "##ing ## # walk##ing play ##ed"),
    ("other-special", "<s> </s> <pad> <mask> <unk> <|endoftext|> <0x0A>"),

    # ---- shape
    ("mixed-case", "tHe QuIcK bRoWn FoX jUmPs OvEr ThE lAzY dOg"),
    ("spaces-around", "   leading and trailing whitespace \n\t "),
    ("crlf", "first line\r\nsecond line\r\n\r\nfourth line\r"),
    ("spaces-inside", "many      spaces\t\t\tand\n\n\n\nlines"),
    ("repetitive", "buffalo " * 120),
    ("repetitive-letter", "a " * 60 + "b"),
    ("repetitive-punctuation", "!" * 300),
    ("no-spaces", "thisisalongsentencewithoutanyspaceswhichthetokenizermustcutintopiecesonitsown"),
]

SUBJECTS = ["the pilot", "a young clerk", "our neighbour", "the old machine", "every visitor", "the second team",
            "a small boat", "the night train", "one of the engineers", "the river", "an empty house", "the new law"]
VERBS = ["crosses", "repairs", "follows", "describes", "measures", "forgets", "carries", "paints", "hides",
         "replaces", "questions", "guards"]
OBJECTS = ["the northern bridge", "a broken clock", "three letters", "the shortest road", "an unusual plan",
           "the stone wall", "half of the harvest", "a quiet garden", "the missing page", "its own shadow",
           "the harbour lights", "a list of names"]
ENDS = ["before sunrise", "without saying a word", "in heavy rain", "for the third time", "at the end of winter",
        "against all advice", "while the others sleep", "by candlelight", "as if nothing had happened", "twice a week"]


def sentences(seed):
    """Endless made-up English."""
    chance = random.Random(seed)
    while True:
        parts = [chance.choice(SUBJECTS), chance.choice(VERBS), chance.choice(OBJECTS), chance.choice(ENDS)]
        text = " ".join(parts)
        yield text[0].upper() + text[1:] + "."


def words_of(seed):
    for sentence in sentences(seed):
        yield from sentence.split()


def text_of_words(seed, count):
    words = words_of(seed)
    return " ".join(next(words) for _ in range(count))


def text_of_tokens(seed, count, count_tokens):
    """Made-up English of exactly `count` tokens: a word that would be too long is left out."""
    text = ""
    for word in words_of(seed):
        longer = f"{text} {word}" if text else word
        if count_tokens(longer) <= count:
            text = longer
        if count_tokens(text) == count:
            return text


def long_word(letters):
    return ("brandywine" * (letters // 10 + 1))[:letters]


def golden_texts(count_tokens):
    """All texts as (id, text). `count_tokens` counts with the special tokens and without truncation."""
    import unicodedata

    texts = []
    for name, text in PLAIN:
        if text.startswith(("NFC:", "NFD:")):       # so that no editor can change the form unseen
            text = unicodedata.normalize(text[:3], text[4:])
        elif name == "korean-nfc":
            text = unicodedata.normalize("NFC", text)
        texts.append((name, text))
    for letters in (99, 100, 101, 5000):
        texts.append((f"word-of-{letters}", long_word(letters)))
    texts.append(("word-of-100-accented", "e\u0301" * 100))
    texts.append(("word-of-101-in-text", f"before {long_word(101)} after"))
    for count in (254, 255, 256, 257, 258):
        texts.append((f"tokens-{count}", text_of_tokens(count, count, count_tokens)))
    texts.append(("tokens-500", text_of_tokens(500, 500, count_tokens)))
    texts.append(("tokens-1000", text_of_tokens(1000, 1000, count_tokens)))
    texts.append(("words-20000", text_of_words(20000, 20000)))
    assert len({name for name, _ in texts}) == len(texts)
    return texts
