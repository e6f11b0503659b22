"""What a chapter begins with: its parameters, numbers for the prose, claims that say what they check."""

import warnings

import matplotlib as mpl
import nbformat
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


@pytest.mark.parametrize("namespace, kind", [({"seed": 0, "n_samples": 100_000}, Method), ({"beta": 1}, "polymnist")])
def test_a_claim_stops_the_run_with_the_defaults_also_where_they_are_given(namespace, kind):
    _, _, claim = chapter.begin(kind, namespace)
    with pytest.raises(chapter.ClaimFailed):
        claim("two is less than one", 2 < 1)


@pytest.mark.parametrize("namespace, kind", [({"seed": 1}, Method), ({"out": "runs/x"}, "polymnist")])
def test_a_claim_only_warns_of_a_run_with_other_parameters(namespace, kind):
    _, _, claim = chapter.begin(kind, namespace)
    with pytest.warns(UserWarning, match="^with these parameters it does not hold that two is less than one: "):
        claim("two is less than one", np.array(2) < 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        claim("one is less than two", 1 < 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_papermill_stops_at_a_broken_claim_with_the_defaults_alone(seed, tmp_path):
    import papermill

    cells = [nbformat.v4.new_code_cell(Method.cell(), metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("from mmvm.study import chapter\nfrom studies.pages.parameters import Method\n"
                                       "p, glue, claim = chapter.begin(Method, globals())"),
             nbformat.v4.new_code_cell('claim("two is less than one", 2 < 1)')]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "page.ipynb")

    def run():
        return papermill.execute_notebook(str(tmp_path / "page.ipynb"), str(tmp_path / "x.ipynb"),
                                          parameters={"seed": seed}, progress_bar=False)
    if seed == Method().seed:
        with pytest.raises(papermill.PapermillExecutionError, match="it does not hold any more that two is less"):
            run()
    else:
        assert "with these parameters it does not hold that two is less than one" in run().cells[-1].outputs[0].text


def test_without_the_book_numbers_go_nowhere(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "myst_nb", None)
    _, glue, _ = chapter.begin(Method, {})
    assert glue("x", 1) is None and glue("x", 1, display=False) is None
