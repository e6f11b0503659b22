"""A method is one class: what is defined here, and nowhere else, trains, has rows, is drawn and is listed."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from mmvm import study
from mmvm.__main__ import main
from mmvm.errors import UserError
from mmvm.objectives import METHODS, MMVM, Objective, Option, Shared, method
from mmvm.objectives.spec import MARKERS, Appearance
from studies.pages.tradeoff import tradeoff
from studies.polymnist.study import PolyMNIST


class Nearest(Objective):
    """Every posterior is drawn to its nearest neighbour: R = pull sum_m min_n KL(q_m || q_n)."""

    def __init__(self, pull: float):
        super().__init__()
        self.pull = pull

    def forward(self, q, observed, step=0):
        others = q.pairwise_kl().masked_fill(torch.eye(len(observed), dtype=torch.bool)[..., None], torch.inf)
        kl = self.pull * others.min(1).values.sum(0)
        return Shared(q.sample().unsqueeze(0), kl, {"kl_nearest": kl})


@pytest.fixture
def nearest(monkeypatch):
    monkeypatch.setattr("mmvm.objectives.spec.METHODS", dict(METHODS))
    method("nearest", "Nearest", "#112233", "<", "this test",
           [Option("pull", 1.0, "weight of the neighbour", at_least=0, paper="none")])(Nearest)


def test_a_method_defined_here_is_a_method_everywhere(nearest, runs, capsys):
    p = PolyMNIST(objective="nearest:pull=0.50", n_modalities=2, n_train=64, n_test=40, network="conv:channels=2",
                  latent_dim=4, batch_size=32, epochs=1, n_probe=60, classifier_epochs=1, device="cpu")
    found = study.run(p)
    assert found.history["kl_nearest"] and {row["method"] for row in found.rows} == {"nearest:pull=0.5"}

    board = pd.DataFrame({"method": ["mmvm", "nearest"], "beta": 1.0, "reconstruction": [1.0, 2.0],
                          "probe": [0.5, 0.6]})
    drawn = tradeoff({"x": board}, {"probe": "probe"}, {"x": 0.0})
    line = next(line for line in drawn.axes[0].lines if line.get_color() == "#112233")
    assert line.get_marker() == "<" and "Nearest" in [text.get_text() for legend in drawn.legends
                                                      for text in legend.get_texts()]
    plt.close(drawn)

    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    assert "\nnearest      Nearest; this test\n  pull: weight of the neighbour\n" in listed
    assert main(["train", "polymnist", "--set", "objective=nearest:push=1", "--dry-run"]) == 2
    assert "objective 'nearest' has no option 'push': it has pull" in capsys.readouterr().err


def test_a_name_that_is_taken_is_refused(nearest):
    with pytest.raises(UserError, match=r"method 'mmvm' of .*Nearest is already that of mmvm\.objectives\.mixture_prior"
                                        r"\.MMVM: choose another name"):
        method("mmvm", "Mine", "#000000", "o", "nowhere")(Nearest)
    method("mmvm", "MMVM", "#D55E00", "o", "again")(MMVM)  # a module that is loaded again


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_a_list_and_a_figure_need(name):
    found = METHODS[name]
    assert found.appearance.label and found.source and found.cls.__doc__
    assert all(option.meaning and option.values() for option in found.options)
    looks = [(shown.colour, shown.marker) for shown in map(lambda m: m.appearance, METHODS.values())]
    assert len(set(looks)) == len(looks)


@pytest.mark.parametrize("colour, marker", [(None, "o"), ("reddish", "o"), ("#12", "o"), ("#112233", "??"),
                                            ("#112233", None), ("#112233", "")])
def test_a_colour_or_marker_that_cannot_be_drawn_is_refused_where_it_is_given(nearest, colour, marker):
    for given in ((("mine", "Mine", colour, marker), None),
                  (("mine", "Mine", "#000000", "o"), {"mine:pull=2": Appearance("Two", colour, marker)})):
        with pytest.raises(UserError, match=r"method 'mine' is drawn in .* give a colour as #RRGGBB, and one of"):
            method(*given[0], "nowhere", variants=given[1])


def test_markers_are_matplotlibs():
    assert set(MARKERS) <= set(plt.Line2D.markers)
