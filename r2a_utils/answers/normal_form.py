r"""The normal form of an answer: what is only style is taken away, before anything is compared.

`\textbf{(C)}` and `(C)`, `115\,000` and `115000`, `√2` and `\sqrt{2}`, `0.\overline{3}` and
`\frac{3}{9}` have one normal form each. This file knows how answers are written. It compares
nothing and computes nothing but the fraction of a repeating decimal.
"""

from __future__ import annotations

import re
import unicodedata

# Commands that say how their argument looks. What stands in them stays.
_STYLES = (
    "boldsymbol|bm|pmb|mathbf|mathit|mathsf|mathtt|mathnormal|textbf|textit|textsf|texttt|emph"
    "|underline|boxed|fbox|hat|vec|overrightarrow|ensuremath|displaystyle|textstyle|operatorname\\*?"
)
_STYLE = re.compile(rf"\\(?:{_STYLES})\s*\{{")
_STYLED_SIGN = re.compile(
    r"\\(?:boldsymbol|bm|mathbf|mathit|mathsf|mathrm|text|hat|vec)\s*"
    r"(\\[A-Za-z]+|(?<= )[A-Za-z0-9]|\d)"
)
_COLOUR = re.compile(r"\\(?:textcolor|colorbox)\s*(?:\[\w+\])?\{[^{}]*\}\s*\{")
_COLOUR_SWITCH = re.compile(r"\\color\s*(?:\[\w+\])?\{[^{}]*\}")
_TEXT = re.compile(r"\\(?:text|textrm|textnormal|mathrm|mbox|hbox|rm)\s*\{")
_NOTHING = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|strut|phantom\{[^{}]*\})"
    r"(?![A-Za-z])"
)
_SPACE = re.compile(
    r"\\(?:[,;:!> ]|q?quad(?![A-Za-z])|thinspace(?![A-Za-z]))|~|\\hspace\*?\{[^{}]*\}"
)
_SYNONYMS = {
    r"\\[dtc]frac(?![A-Za-z])": r"\\frac",
    r"\\dbinom|\\tbinom": r"\\binom",
    r"\\leq(?:slant)?(?![A-Za-z])": r"\\le ",
    r"\\geq(?:slant)?(?![A-Za-z])": r"\\ge ",
    r"\\lt(?![A-Za-z])": "<",
    r"\\gt(?![A-Za-z])": ">",
    r"\\not\s*=|\\ne(?![A-Za-z])": r"\\neq ",
    r"\\(?:lbrace)(?![A-Za-z])": r"\\{",
    r"\\(?:rbrace)(?![A-Za-z])": r"\\}",
    r"\\langle(?![A-Za-z])": "(",
    r"\\rangle(?![A-Za-z])": ")",
    r"\\lbrack(?![A-Za-z])": "[",
    r"\\rbrack(?![A-Za-z])": "]",
    r"\\(?:ast|cdotp)(?![A-Za-z])": r"\\cdot ",
    r"\\div(?![A-Za-z])": "/",
    r"\\(?:mid|vert|lvert|rvert)(?![A-Za-z])": "|",
    r"\\(?:imath)(?![A-Za-z])": "i",
    r"\\(?:jmath)(?![A-Za-z])": "j",
    r"\\colon(?![A-Za-z])": ":",
    r"\\lg(?![A-Za-z])": r"\\log_{10}",
    r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}": r"\\emptyset ",
    r"\\mathbb\s*R|\\R(?![A-Za-z])": r"\\mathbb{R}",
    r"(?<=\d)\s*to\s*(?=\d)": ":",
    r"\\%": "%",
    r"<=": r"\\le ",
    r">=": r"\\ge ",
    r"!=": r"\\neq ",
}
_SIGNS = {
    "⁄": "/", "∕": "/", "÷": "/", "−": "-", "–": "-", "—": "-",
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
    "∗": "*", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\neq ",
    "±": r"\pm ", "∓": r"\mp ", "°": r"^{\circ}", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "∅": r"\emptyset ", "≡": r"\equiv ", "≈": r"\approx ", "∠": r"\angle ", "…": r"\ldots ",
    "ℝ": r"\mathbb{R}",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "θ": r"\theta ",
    "λ": r"\lambda ", "μ": r"\mu ", "φ": r"\phi ", "ω": r"\omega ", "σ": r"\sigma ",
    "“": '"', "”": '"', "‘": "'", "’": "'", "，": ",", "；": ";", "、": ",", "。": ".", "％": "%",
    "\u00a0": " ", "\u2009": r"\,", "\u202f": r"\,", "\u200b": "",
}  # fmt: skip
_HIGH = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni")
_LOW = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙ", "0123456789+-()n")
_HIGHS, _LOWS = "".join(map(chr, _HIGH)), "".join(map(chr, _LOW))
# One roman letter is a unit after a number; any other is a variable or a constant.
_UNIT_LETTERS = "mghsLlNJWVAKCF"
_NUMBER_WORDS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "sixteen": 16,
}  # fmt: skip
# The end of a matrix's row while the text is worked on: two backslashes are no command's first.
_ROW = "\2"
_FUNCTIONS = (
    "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|gcd|lcm|max|min|det"
)


def normal_form(answer: str) -> str:
    """An answer without dollar signs, style and filler, its numbers written in one way.

    Fractions, roots, powers and indices have braces around each argument; words that are a unit
    stand in `\\text{…}` behind their number. Idempotent. Stage 1.
    """
    text = _in_ascii(answer.strip()).replace("\\\\", _ROW)
    text = _styled_plainly(text)
    text = _numbers_plainly(text)
    text = _braced(text)
    text = _mixed_numbers(text)
    return _spaced(text).replace(_ROW, "\\\\")


def _in_ascii(text: str) -> str:
    """Signs, powers, fractions and wide characters of Unicode as LaTeX writes them."""
    text = re.sub(f"[{_HIGHS}]+", lambda m: "^{" + m[0].translate(_HIGH) + "}", text)
    text = re.sub(f"[{_LOWS}]+", lambda m: "_{" + m[0].translate(_LOW) + "}", text)
    text = re.sub("[¼-¾⅐-⅞]", lambda m: " " + _vulgar(m[0]), text)
    for sign, written in _SIGNS.items():
        text = text.replace(sign, written)
    text = re.sub(r"√\s*(?=[({])", r"\\sqrt", text)
    text = re.sub(r"√\s*(\d+(?:\.\d+)?|[A-Za-z])", r"\\sqrt{\1}", text)
    text = re.sub(r"∛\s*(\d+|[A-Za-z])", r"\\sqrt[3]{\1}", text)
    return unicodedata.normalize("NFKC", text)


def _vulgar(sign: str) -> str:
    above, _, below = unicodedata.normalize("NFKC", sign).partition("\N{FRACTION SLASH}")
    return rf"\frac{{{above}}}{{{below}}}"


def _styled_plainly(text: str) -> str:
    """Without what says how a part looks; words of several kinds of text in `\\text{…}`."""
    text = re.sub(r"(?<!\\)(?:\\\\)*\\[()\[\]]", " ", text) if _delimited(text) else text
    text = re.sub(r"\\\$\s*|[€£]\s*", "", text).replace("$", " ")
    text = re.sub(r"\*\*|__|`|(?<![\w*^])\*(?=\w[^*]*\*$)|(?<=\w)\*$", "", text)
    text = _COLOUR_SWITCH.sub("", text)
    text = _STYLED_SIGN.sub(r" \1", text)
    for pattern in (_COLOUR, _STYLE):
        text = _unwrapped(text, pattern, lambda content, _: content)
    text = re.sub(r"\d[\d ]*(?:\\[,!]|\{,\}|,\\!|~)[\d\\,!{}~ ]*\d", _one_number, text)
    text = _unwrapped(text, _TEXT, _words)
    text = _NOTHING.sub("", text)
    text = _SPACE.sub(" ", text)
    for pattern, written in _SYNONYMS.items():
        text = re.sub(pattern, written, text)
    text = re.sub(
        r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree(?![A-Za-z])", r"\\text{degrees}", text
    )
    text = re.sub(
        rf"(?<![\\A-Za-z])({_FUNCTIONS})(?=\s*[(\\\d^]|\s+[a-z](?![a-z]))", r"\\\1 ", text
    )
    text = re.sub(r"(?<![\\A-Za-z])sqrt(?=\s*[({])", r"\\sqrt", text)
    text = re.sub(r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi ", text)
    text = re.sub(r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty ", text)
    text = re.sub(r"(?<=[\d})\w])\s*,?\s+(?:and|or)\s+(?=[-+\d\\({A-Za-z]+)", _listed, text)
    return text.strip().strip("\"'").removesuffix(".").strip()


def _delimited(text: str) -> bool:
    return bool(re.match(r"\s*\\[(\[]", text) and re.search(r"\\[)\]]\s*\.?\s*$", text))


def _listed(match: re.Match) -> str:
    """ "and" and "or" make a list of what is mathematics; between words they are words."""
    before, after = match.string[: match.start()], match.string[match.end() :]
    words = [re.search(r"[A-Za-z]{3,}$", before), re.match(r"[A-Za-z]{3,}", after)]
    commands = [re.search(r"\\[A-Za-z]+$", before), re.match(r"\\", after)]
    plain = any(word and not command for word, command in zip(words, commands, strict=True))
    return match[0] if plain else ", "


def _unwrapped(text: str, pattern: re.Pattern, written) -> str:
    """Each `\\command{content}` of a pattern replaced by `written(content, what stands before)`."""
    while match := pattern.search(text):
        stop = _closing(text, match.end())
        content = text[match.end() : stop]
        before = text[: match.start()]
        text = before + written(content, before) + text[stop + 1 :]
    return text.replace("\1", r"\text{")


def _words(content: str, before: str) -> str:
    """What a `\\text{…}` says: a unit stays in it (marked by one character), the rest is plain."""
    content = content.replace("$", " ")
    bare = content.strip()
    if bare.casefold() in ("and", "or", ", and", ", or"):
        return " , "
    if bare == "to":
        return ":"
    if re.fullmatch(r"base(?:\s*\w+)?|\(\s*base\s*\w+\s*\)", bare):
        return " " + bare
    after_value = re.search(
        r"(?:[\d})%]|\\[a-z]+|(?<![A-Za-z])[a-z])\s*(?:\\[,;: ]|~)?\s*$", before
    )
    words = re.fullmatch(r"[A-Za-z][A-Za-z./ ]*", bare)
    if after_value and words and (len(bare) > 1 or bare in _UNIT_LETTERS):
        return "\1" + bare + "}"
    # Words that stand beside mathematics must not run into it.
    return content if len(bare) == 1 else f" {content} "


def _closing(text: str, start: int) -> int:
    """Where the group whose content starts at `start` closes; the end of an unclosed one."""
    depth, i = 1, start
    while i < len(text):
        if text[i] == "\\":
            i += 1
        elif text[i] in "{}":
            depth += 1 if text[i] == "{" else -1
            if depth == 0:
                return i
        i += 1
    return len(text)


def _one_number(match: re.Match) -> str:
    """Digits that LaTeX's thin spaces or a guarded comma part in threes, as one number."""
    plain = re.sub(r"\{,\}|,?\\!|\\,|~|(?<=\d)\s+(?=\d{3}(?!\d))", "\0", match[0])
    plain = re.sub(r"\0+ *", "\0", plain)
    if re.fullmatch(r"\d{1,3}(?:\0\d{3})+", plain):
        return plain.replace("\0", "")
    return match[0]


def _numbers_plainly(text: str) -> str:
    """Thousands, repeating decimals and bases written in one way."""
    text = re.sub(r"(?<![\d.])\d{1,3}(?: \d{3})+(?![\d/])", lambda m: m[0].replace(" ", ""), text)
    bare = re.sub(r"\s*(?:\\text\{[^{}]*\}|%|[A-Za-z ]+)$", "", text)
    if re.fullmatch(r"[+-]?\s*[1-9]\d{0,2}(?:,\s?\d{3})+(?:\.\d+)?", bare):
        text = re.sub(r",\s?", "", bare) + text[len(bare) :]
    text = re.sub(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))", _repeating, text)
    text = re.sub(r"^\((\w+)\)(?=_|\s*base)", r"\1", text)
    named = "|".join(_NUMBER_WORDS)
    text = re.sub(
        rf"^(\d\w*)\s*(?:_\s*\{{?\s*\(?(?:base\s*)?|\(?\s*base\s*)(\d+|{named})\s*\)?\s*\}}?$",
        lambda m: f"{m[1]}_{{{_NUMBER_WORDS.get(m[2], m[2])}}}",
        text.strip(),
    )
    text = re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)
    text = re.sub(r"^([+-]?\d+(?:\.\d+)?)[eE]\+?(-?\d+)$", r"\1\\cdot10^{\2}", text)
    return str(_NUMBER_WORDS.get(text.casefold(), text))


def _repeating(match: re.Match) -> str:
    whole, fixed, cycle = match[1] or "0", match[2], match[3] or match[4]
    below = (10 ** len(cycle) - 1) * 10 ** len(fixed)
    above = int(whole + fixed + cycle) - int(whole + fixed)
    return rf"\frac{{{above}}}{{{below}}}"


def _braced(text: str) -> str:
    """Every argument of a fraction, a root, a power and an index in braces."""
    out, i = [], 0
    while i < len(text):
        command = re.compile(r"\\(frac|sqrt|binom|pmod|angle|triangle)(?![A-Za-z])|[\^_]").match(
            text, i
        )
        if command is None:
            if text[i] == "\\":
                step = re.compile(r"\\(?:[A-Za-z]+|.)?").match(text, i)
                out.append(step[0])
                i = step.end()
                if text[i : i + 1] == "{" and step[0][1:].isalpha():  # the command's argument
                    stop = _closing(text, i + 1)
                    out.append("{" + _braced(text[i + 1 : stop]) + "}")
                    i = stop + 1
            elif text[i] == "{":  # a group that holds together what is together anyway
                stop = _closing(text, i + 1)
                out.append(_braced(text[i + 1 : stop]))
                i = stop + 1
            else:
                out.append(text[i])
                i += 1
            continue
        out.append(command[0])
        i = command.end()
        if command[1] in ("angle", "triangle"):
            out.append(" ")
            continue
        if command[1] == "sqrt" and (degree := re.compile(r"\s*\[([^\[\]]*)\]").match(text, i)):
            out.append(f"[{degree[1].strip()}]")
            i = degree.end()
        for _ in range(2 if command[1] in ("frac", "binom") else 1):
            content, i = _argument(text, i, command[1] == "sqrt")
            out.append("{" + _braced(content) + "}")
    return "".join(out)


def _argument(text: str, i: int, parentheses: bool) -> tuple[str, int]:
    """The argument that starts at `i`: a group, a command, one character; and where it ends."""
    while i < len(text) and text[i] == " ":
        i += 1
    if text[i : i + 1] == "{":
        stop = _closing(text, i + 1)
        return text[i + 1 : stop].strip(), stop + 1
    if parentheses and text[i : i + 1] == "(":
        stop = _matching(text, i)
        return text[i + 1 : stop], stop + 1
    if text[i : i + 1] == "-":
        content, stop = _argument(text, i + 1, parentheses)
        return "-" + content, stop
    command = re.compile(r"\\[A-Za-z]+|.?", re.DOTALL).match(text, i)
    if command[0] in (r"\frac", r"\sqrt", r"\binom"):
        stop = command.end()
        for _ in range(1 if command[0] == r"\sqrt" else 2):
            _, stop = _argument(text, stop, command[0] == r"\sqrt")
        return text[i:stop], stop
    return command[0], command.end()


def _matching(text: str, i: int) -> int:
    depth = 0
    for j in range(i, len(text)):
        depth += {"(": 1, ")": -1}.get(text[j], 0)
        if depth == 0:
            return j
    return len(text)


def _mixed_numbers(text: str) -> str:
    r"""`1\frac{3}{4}` and `1 3/4` are sums; `2\frac{x}{3}` is a product and stays."""
    fraction = r"\\frac\{(\d+)\}\{(\d+)\}"
    text = re.sub(rf"(?<![\w.}}^_)])(\d+)\s*{fraction}", r"(\1+\\frac{\2}{\3})", text)
    return re.sub(r"(?<![\w.}^_)/])(\d+)\s+(\d+)/(\d+)(?![\w/])", r"(\1+\\frac{\2}{\3})", text)


def _spaced(text: str) -> str:
    """Blanks only where they part two letters or digits."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])", "", text)
    return re.sub(r"(\\[A-Za-z]+) (?![A-Za-z])", r"\1", text)
