"""What every chapter does first: one call gives it its parameters, numbers for its prose, and checked claims."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from mmvm.study import figures
from mmvm.study.parameters import Parameters
from mmvm.study.registry import STUDIES

__all__ = ["ClaimFailed", "begin"]


class ClaimFailed(AssertionError):
    """A sentence of a page does not hold any more; names the page and the sentence.

    >>> from mmvm.study import chapter
    >>> issubclass(chapter.ClaimFailed, AssertionError)
    True
    """


def begin(kind: type[Parameters] | str, namespace: Mapping) -> tuple[Parameters, Callable, Callable]:
    """The chapter's parameters out of its `globals()`, `glue` and `claim`; figures get the book's style.

    kind  the class of the parameters, or a study's name

    glue(name, value)        puts a number into the prose; outside the book, say on Colab, it goes nowhere
    claim(sentence, holds)   raises `ClaimFailed` with the sentence where it does not hold: what the prose says of
                             numbers that may change is claimed beside them. The prose is about the run with the class's
                             defaults, which the committed notebook shows; with other parameters it warns and goes on

    Unknown names and wrong types are a `UserError` that lists what exists; call this before the chapter defines
    anything of its own.

    >>> from mmvm.study import chapter
    >>> p, glue, claim = chapter.begin(Toy, {"beta": 0.5, "epochs": 1})
    >>> claim("beta is below one", p.beta < 1)
    """
    kind = STUDIES[kind] if isinstance(kind, str) else kind
    p = kind.from_notebook(namespace)
    figures.use_style()
    try:
        from myst_nb import glue
    except ImportError:
        def glue(name: str, value: Any, display: bool = False) -> None:
            pass

    def claim(sentence: str, holds: Any) -> None:
        if not bool(holds) and p == kind():
            raise ClaimFailed(f"chapter {kind.name}: it does not hold any more that {sentence}. Look at the numbers "
                              "above, then change the text or the run")
        if not bool(holds):
            warnings.warn(f"with these parameters it does not hold that {sentence}: the text around is of the default "
                          "run", stacklevel=2)
    return p, glue, claim
