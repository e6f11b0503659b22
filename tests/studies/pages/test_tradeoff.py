"""Scores against the error: names of betas lie within their panels, hollow marks are explained."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.text import Annotation

from mmvm.study.figures import use_style
from studies.pages.tradeoff import tradeoff

BOARD = pd.DataFrame({"method": "mmvm", "beta": [1 / 128, 1.0, 8.0], "reconstruction": [3000.0, 3300.0, 3700.0],
                      "probe": [0.8, 0.9, 0.1]})


@pytest.mark.parametrize("edges", [None, {"b": pd.DataFrame({"method": ["poe"], "probe": [0.5]})}])
def test_names_stay_within_their_panels(edges):
    with plt.rc_context():
        use_style()
        fig = tradeoff({"a": BOARD, "b": BOARD, "c": BOARD}, {"probe": "linear probe"}, {"a": 2900, "b": 0, "c": 2900},
                       edges=edges)
        fig.draw_without_rendering()
    names = [text for ax in fig.axes for text in ax.texts if isinstance(text, Annotation)]
    assert [text.get_text() for text in names] == [r"$\beta$=1/128", r"$\beta$=8"] * 3
    for text in names:
        box, panel = text.get_window_extent(), text.axes.get_window_extent()
        assert box.x0 > panel.x0 and box.y0 > panel.y0, text.get_text()
    said = [text.get_text() for text in fig.legends[0].get_texts()]
    assert said == ["MMVM"] + ["hollow: error not known"] * (edges is not None)
    plt.close(fig)
