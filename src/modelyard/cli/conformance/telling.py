"""How findings are told to people: a line each as it comes, the failed ones again at the end."""

import textwrap
from collections.abc import Sequence

from modelyard.cli.output import stdout_console
from modelyard.conformance.check import Finding, Result
from modelyard.conformance.runner import Report

_WORDS: dict[Result, tuple[str, str]] = {
    "passed": ("passed", "green"),
    "failed": ("FAILED", "bold red"),
    "not_applicable": ("n/a", "dim"),
}
_RESULT_WIDTH = 6
_LEAST_SEEN = 30
"""Columns for what was seen; where there are fewer, it goes on a line of its own."""


class Teller:
    """Prints a theme's name, then its checks below it: result, name, what was seen."""

    def __init__(self, names: Sequence[str]) -> None:
        """`names`: of all checks to come; they decide how wide the column is."""
        self._console = stdout_console()
        self._theme = ""
        self._name_width = max((len(_short(name)) for name in names), default=0)

    def tell(self, finding: Finding) -> None:
        """A check has ended."""
        theme = finding.name.partition("/")[0]
        if theme != self._theme:
            if self._theme:
                self._console.print()
            self._theme = theme
            self._console.print(theme, style="bold")
        word, style = _WORDS[finding.result]
        begin = f"  {word:{_RESULT_WIDTH}}  {_short(finding.name):{self._name_width}}  "
        lines = self._wrapped(finding.seen, len(begin))
        self._console.print(f"  {word:{_RESULT_WIDTH}}", style=style, end="")
        self._console.print((begin + lines[0])[2 + _RESULT_WIDTH :].rstrip(), soft_wrap=True)
        for line in lines[1:]:
            self._console.print(line, soft_wrap=True)

    def sum(self, found: Report, took_s: float) -> None:
        """All are over."""
        failed = [finding for finding in found.checks if finding.result == "failed"]
        self._console.print()
        self._console.print(
            f"{found.passed} passed, {found.failed} failed, "
            f"{found.not_applicable} not applicable in {took_s:.0f} s",
            style="bold red" if failed else "bold",
        )
        for finding in failed:
            self._console.print(f"failed: {finding.name}", soft_wrap=True)
        if failed:
            self._console.print("again: the same command with --only NAME")

    def _wrapped(self, seen: str, begin: int) -> list[str]:
        """The first line without its indent, the others with it."""
        width = self._console.width
        if width - begin >= _LEAST_SEEN:
            rest = " " * begin
            lines = textwrap.wrap(seen, width - begin, break_on_hyphens=False) or [""]
            return [lines[0], *[rest + line for line in lines[1:]]]
        rest = " " * (4 + _RESULT_WIDTH)
        return ["", *[rest + line for line in textwrap.wrap(seen, max(20, width - len(rest)))]]


def _short(name: str) -> str:
    return name.partition("/")[2]
