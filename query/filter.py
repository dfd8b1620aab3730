"""The filter language: `parse(text) -> Term`, raising `FilterError(message, position)`.

    parse('agent = "engineer" and duration > 250ms and not name =~ "health.*"')

A `Term` says which events are meant and stands for true or false on every event, never for a third: what is missing
equals nothing, is neither less nor more than anything and matches nothing, so `not x = 1` holds where `x` is missing,
and `x != 1` means just that. `filter_sql.of_events(term) -> ColumnElement[bool]` turns it into a condition over
`execution_events`, with bound parameters only; `filter_fields` has the fields. docs/search.md is the language's manual.

    any     = all ("or" all)*
    all     = single ("and"? single)*
    single  = "not" single | "(" any ")" | field test | TEXT
    test    = ("=" | "!=" | "<" | "<=" | ">" | ">=" | "=~" | "!~") value
            | "not"? "in" "(" value ("," value)* ")"
            | "exists"
    field   = NAME | NAME "[" STRING "]"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from .filter_fields import Field, Kind, UnknownField, Value, field_named, is_unit, read_pattern, read_value

TEXT_LENGTH_MAX = 4_000
DEPTH_MAX = 50
# Each is looked for in everything that an event says.
TEXTS_MAX = 20


class FilterError(ValueError):
    """Text that is no filter; `position` is that of the character to blame, from 0."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(f"{message} (character {position + 1})")
        self.position = position


class Order(StrEnum):
    """How something compares with a value."""

    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="


@dataclass(frozen=True)
class Every:
    """All of them hold; so it does where there are none."""

    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Either:
    """At least one of them holds."""

    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Not:
    """It does not hold."""

    term: Term


@dataclass(frozen=True)
class Among:
    """The field equals one of the values; of logs and links: that of any of them, here and in what follows."""

    field: Field
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Compared:
    """The field is of the value's type and in this order to it."""

    field: Field
    order: Order
    value: Value


@dataclass(frozen=True)
class Matches:
    """The field's text matches the regular expression (RE2) as a whole."""

    field: Field
    pattern: str


@dataclass(frozen=True)
class Exists:
    """The field is there and not null."""

    field: Field


@dataclass(frozen=True)
class Text:
    """The text, in whatever case, is in what the event says."""

    text: str


Term = Every | Either | Not | Among | Compared | Matches | Exists | Text
EVERYTHING = Every(())


def parse(text: str) -> Term:
    """What `text` means; everything where it is blank. Raises FilterError. Times such as `-1h` are of this moment."""
    if len(text) > TEXT_LENGTH_MAX:
        raise FilterError(f"a filter has {TEXT_LENGTH_MAX:,} characters at most", TEXT_LENGTH_MAX)
    return _Parser(list(_tokens(text))).whole()


def parse_fields(text: str) -> list[tuple[str, Field]]:
    """The fields that are named in `text`, with commas between, each as it is written there. Raises FilterError."""
    return list(_Parser(list(_tokens(text))).fields(text))


def fields_of(term: Term) -> Iterator[Field | None]:
    """The field that each part of the term asks of; None for free text."""
    match term:
        case Every(terms) | Either(terms):
            for inner in terms:
                yield from fields_of(inner)
        case Not(inner):
            yield from fields_of(inner)
        case Text():
            yield None
        case _:
            yield term.field


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int

    @property
    def told(self) -> str:
        return "the end" if self.kind == "end" else repr(self.text)


_PATTERNS = {
    "string": r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'",
    "foreign": r"==|&&?|\|\|?|<>|!(?![=~])",
    "sign": r"=~|!~|!=|<=|>=|[=<>()\[\],]",
    "word": r"""[^\s()\[\],"'=!<>~&|]+""",
    "open": r"[\"']",
    "space": r"\s+",
    "other": r".",
}
_TOKEN = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()), re.DOTALL)
T = TypeVar("T")
_ESCAPED = re.compile(r"\\([\"'\\])")
_TESTS = ("=", "!=", "<", "<=", ">", ">=", "=~", "!~", "in", "exists")
_KEYWORDS = ("and", "or", "not", "in", "exists")
_FOREIGN = {"==": "=", "&&": "and", "&": "and", "||": "or", "|": "or", "<>": "!=", "!": "not"}


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        kind, said, position = str(found.lastgroup), found[0], found.start()
        if kind == "open":
            raise FilterError(f"the text that begins here has no closing {said}", position)
        if kind == "foreign":
            raise FilterError(f"write {_FOREIGN[said]} instead of {said}, or put the text in quotes", position)
        if kind == "other":
            raise FilterError(f"{said!r} belongs to no filter; put texts in quotes", position)
        if kind == "word" and said.lower() in _KEYWORDS:
            kind, said = "keyword", said.lower()
        if kind != "space":
            yield _Token(kind, said, position)
    yield _Token("end", "", len(text))


class _Parser:
    """Recursive descent: each method reads what it is named after."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._texts = 0

    def whole(self) -> Term:
        if self._next.kind == "end":
            return EVERYTHING
        term = self._any()
        if self._next.kind != "end":
            raise self._unexpected("`and`, `or` or the end")
        return term

    def fields(self, text: str) -> Iterator[tuple[str, Field]]:
        while self._next.kind != "end":
            word = self._expect_kind("word", "a field")
            field = self._field(word, may_be_text=False)
            yield text[word.position : self._next.position].strip(), field
            if self._next.kind != "end" and not self._take(","):
                raise self._unexpected("a comma")

    def _any(self) -> Term:
        terms = [self._all()]
        while self._take("or"):
            terms.append(self._all())
        return terms[0] if len(terms) == 1 else Either(tuple(terms))

    def _all(self) -> Term:
        terms = [self._single()]
        while self._take("and") or self._single_follows():
            terms.append(self._single())
        return terms[0] if len(terms) == 1 else Every(tuple(terms))

    def _single_follows(self) -> bool:
        return self._next.kind in ("word", "string") or self._next.text in ("(", "not")

    def _single(self) -> Term:
        if self._take("not"):
            return Not(self._deeper(self._single))
        if self._take("("):
            term = self._deeper(self._any)
            self._expect(")")
            return term
        if self._next.kind == "string":
            token = self._advance()
            return self._text(_unquoted(token.text), token)
        if self._next.kind != "word":
            raise self._unexpected("a field, a text, `not` or (")
        word = self._advance()
        if self._next.text != "[" and not self._test_follows():
            return self._text(word.text, word)
        return self._test(self._field(word))

    def _deeper(self, read: Callable[[], Term]) -> Term:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise FilterError(f"nested more than {DEPTH_MAX} deep", self._next.position)
        term = read()
        self._depth -= 1
        return term

    def _text(self, text: str, token: _Token) -> Term:
        self._texts += 1
        if self._texts > TEXTS_MAX:
            raise FilterError(
                f"a filter searches for {TEXTS_MAX} texts at most; put a phrase in quotes", token.position
            )
        return Text(text)

    def _test_follows(self) -> bool:
        first, *second = (token.text for token in self._tokens[self._at : self._at + 2])
        return first in _TESTS or [first, *second] == ["not", "in"]

    def _field(self, word: _Token, *, may_be_text: bool = True) -> Field:
        key = None
        if self._take("["):
            key = self._expect_kind("string", "the attribute's key in quotes")
            self._expect("]")
        try:
            return field_named(word.text, None if key is None else _unquoted(key.text))
        except UnknownField as error:
            in_quotes = ", a text to search for in quotes" if may_be_text and error.may_be_text else ""
            raise FilterError(f"{error}{in_quotes}", word.position) from error

    def _test(self, field: Field) -> Term:
        if not self._test_follows():
            raise self._unexpected(f"{', '.join(_TESTS[:-2])}, `in` or `exists`")
        negated = self._take("not")
        test = self._advance()
        match test.text:
            case "exists":
                return Exists(field)
            case "in":
                term: Term = self._among(field)
            case "=" | "!=":
                term = Among(field, (self._value(field),))
            case "=~" | "!~":
                term = self._matches(field)
            case _:
                term = self._compared(field, test)
        return Not(term) if negated or test.text in ("!=", "!~") else term

    def _among(self, field: Field) -> Term:
        self._expect("(")
        values = [self._value(field)]
        while self._take(","):
            values.append(self._value(field))
        self._expect(")")
        return Among(field, tuple(values))

    def _compared(self, field: Field, sign: _Token) -> Term:
        value = self._value(field)
        if not field.is_ordered or isinstance(value, bool):
            raise FilterError(f"{field.name} has no order; use =, != or `in`", sign.position)
        return Compared(field, Order(sign.text), value)

    def _matches(self, field: Field) -> Term:
        return Matches(field, self._read(lambda text, _: read_pattern(field, text)))

    def _value(self, field: Field) -> Value:
        value = self._read(lambda text, quoted: read_value(field, text, quoted=quoted))
        if field.kind is Kind.DURATION and self._next.kind == "word" and is_unit(self._next.text):
            raise FilterError("a unit follows its number without a space", self._next.position)
        return value

    def _read(self, read: Callable[[str, bool], T]) -> T:
        if self._next.kind not in ("word", "string"):
            raise self._unexpected("a value")
        token = self._advance()
        quoted = token.kind == "string"
        try:
            return read(_unquoted(token.text) if quoted else token.text, quoted)
        except ValueError as error:
            raise FilterError(str(error), token.position) from error

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _advance(self) -> _Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _take(self, text: str) -> bool:
        is_it = self._next.kind in ("sign", "keyword") and self._next.text == text
        self._at += is_it
        return is_it

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise self._unexpected(text)

    def _expect_kind(self, kind: str, told: str) -> _Token:
        if self._next.kind != kind:
            raise self._unexpected(told)
        return self._advance()

    def _unexpected(self, wanted: str) -> FilterError:
        found = self._next
        hint = "; in quotes it is a text" if found.kind == "keyword" else ""
        return FilterError(f"{wanted} should be here, not {found.told}{hint}", found.position)


def _unquoted(text: str) -> str:
    """What stands between the quotes. Before a quote and before a backslash a backslash is an escape; any other one is
    itself, so that regular expressions are written as they are."""
    return _ESCAPED.sub(r"\1", text[1:-1])
