"""What a chapter begins with: its parameters, numbers for the prose, claims that say what they check."""

import matplotlib as mpl
import numpy as np
import pytest

from mmvm.errors import UserError
from mmvm.study import chapter
from mmvm.study.figures import WIDTH
from studies.pages.parameters import Method
from studies.polymnist.study import PolyMNIST


def test_a_chapter_gets_its_parameters_by_class_or_by_its_studys_name():
    namespace = {"beta": 0.5, "np": np, "Method": Method, "_i": "x"}
    assert chapter.begin("polymnist", namespace)[0] == PolyMNIST(beta=0.5)
    assert chapter.begin(Method, {"seed": 3})[0] == Method(seed=3)
    assert mpl.rcParams["figure.figsize"][0] == WIDTH, "the book's style"


def test_unknown_names_are_refused_before_anything_runs():
    with pytest.raises(UserError, match="unknown parameter bta"):
        chapter.begin("polymnist", {"bta": 0.5})


def test_a_claim_that_fails_says_its_sentence_and_its_page():
    _, glue, claim = chapter.begin(Method, {})
    claim("one is less than two", 1 < 2)
    claim("arrays are asked as a whole", np.array([True, True]).all())
    glue("a-number", "3")
    with pytest.raises(chapter.ClaimFailed, match="^chapter method: it does not hold any more that two is"):
        claim("two is less than one", 2 < 1)
    assert issubclass(chapter.ClaimFailed, AssertionError)


def test_without_the_book_numbers_go_nowhere(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "myst_nb", None)
    _, glue, _ = chapter.begin(Method, {})
    assert glue("x", 1) is None and glue("x", 1, display=False) is None
