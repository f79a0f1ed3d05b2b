"""`bs4(html, 'html.parser').get_text()`: the text of an HTML page, within the budget."""

from __future__ import annotations

import io
from typing import Any

from machina.errors import BudgetExceeded
from machina.expressions.budget import Budget

MAX_MARKUP = 1_000_000  # characters


class Page:
    """A parsed page. Its text can be asked for, and nothing else."""

    __slots__ = ("soup",)

    def __init__(self, soup: Any) -> None:
        self.soup = soup


def parse_page(budget: Budget, markup: Any = "", features: Any = "html.parser", /) -> Page:
    """The function `bs4` of the language. The only parser is Python's own.

    That parser needs quadratic time for hostile pages and cannot be interrupted as a whole; so
    the clock is looked at on every piece of markup it reports.
    """
    if type(markup) is not str:
        raise TypeError(f"bs4() needs a text, not '{type(markup).__name__}'")
    if features != "html.parser":
        raise ValueError("the only parser of bs4() is 'html.parser'")
    if len(markup) > MAX_MARKUP:
        raise BudgetExceeded(f"a page is longer than {MAX_MARKUP:,} characters")
    from bs4 import BeautifulSoup  # noqa: PLC0415  # 0.2 s of import for a rare function

    class Soup(BeautifulSoup):
        """Looks at the clock whenever the parser has found something."""

        def handle_data(self, data: str) -> None:
            budget.take(500)
            budget.look_at_clock()
            super().handle_data(data)

        def handle_starttag(self, *args: Any, **kwargs: Any) -> Any:
            budget.work(20)
            budget.take(1_000)
            budget.look_at_clock()
            return super().handle_starttag(*args, **kwargs)

        def handle_endtag(self, *args: Any, **kwargs: Any) -> None:
            budget.look_at_clock()
            super().handle_endtag(*args, **kwargs)

    # Declarations are no text; disguised, and read from a file, they cause no warnings.
    for declaration in ("<?xml ", "<?XML "):
        markup = markup.replace(declaration, "<?_xml ")
    budget.take(3 * len(markup))
    budget.look_at_clock()
    return Page(Soup(io.StringIO(markup), "html.parser"))


def page_text(budget: Budget, page: Page, /, separator: Any = "", strip: Any = False) -> str:
    """`get_text(separator, strip)`: all texts of the page, joined."""
    if type(separator) is not str:
        raise TypeError("get_text() needs a text as separator")
    texts = [str(text) for text in (page.soup.stripped_strings if strip else page.soup.strings)]
    budget.work(10 * len(texts))
    budget.take(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)
