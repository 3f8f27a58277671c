"""A language model for the page's tests: what it answers follows from what it is asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from tests.support.openai_double import Answer, OpenAIDouble, delta, reply

COUNT = "Count slowly"
"""Never ends by itself."""
COUNT_ONCE = "Count until somebody stops you"
"""Never ends the first time; ends at once when it is asked again."""
MARKUP = "Write some markup"
TAGS = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


class PageModel(OpenAIDouble):
    """Numbers its answers, so that no two are the same."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: Iterator[int] = itertools.count(1)
        self.counted = False

    @property
    def prompt(self) -> str:
        """All that the model was told last."""
        return "\n".join(each["content"] for each in self.requests[-1]["messages"])

    @property
    def conversation(self) -> list[str]:
        """What the model was last told was said, without what is remembered."""
        said = self.requests[-1]["messages"]
        return [each["content"] for each in said if each["role"] != "system"]

    def _next_answer(self) -> Answer:
        number = next(self.numbers)
        asked = last_message(self.requests[-1])
        if asked == COUNT_ONCE and not self.counted:
            self.counted = True
            return _forever()
        if asked == COUNT:
            return _forever()
        if asked == MARKUP:
            return reply("Here: ", TAGS)
        return reply("That is", " answer ", f"number {number}.")


def _forever() -> Answer:
    return Answer([delta("one "), delta("and on ")], forever=True, pause_s=0.05)


def last_message(request: dict[str, Any]) -> str:
    """What the person said last."""
    return str(request["messages"][-1]["content"])
