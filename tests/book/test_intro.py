"""What the landing page's verdict is read from."""

import pandas as pd

from studies.pages import intro


def test_the_frontier_is_the_best_probe_at_every_error():
    board = pd.DataFrame({"method": ["c", "a", "b", "d", "e"], "reconstruction": [30.0, 10, 20, 40, 50],
                          "probe": [0.7, 0.5, 0.4, 0.7, 0.8]})
    assert intro.frontier(board)["method"].tolist() == ["a", "c", "e"]


def test_every_method_of_the_rows_and_of_the_paper_has_a_place_for_its_name():
    from mmvm import paths
    from mmvm.study import results

    rows = results.read("polymnist")
    methods = set(rows.loc[rows["profile"] == "laptop", "method"])
    assert {name for name in methods if not set(name) & set("/:")} <= set(intro.HERE)
    paper = pd.read_csv(paths.REPOSITORY / "data" / "reference" / "polymnist_paper.csv")
    assert set(paper["method"]) <= set(intro.PAPER)


def test_the_page_sets_no_formula():
    """One would bring MathJax, as heavy as all the rest (tests/browser measures the whole)."""
    from mmvm import paths

    text = (paths.REPOSITORY / "book" / "text" / "intro.md").read_text()
    prose = "".join(text.split("```")[::2])  # cells stand between fences
    assert len(prose) > 3_000 and "$" not in prose and "{math}" not in prose
