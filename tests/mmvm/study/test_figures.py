"""Figures can be read: colours with colour-vision deficiencies, letters on paper, names at their lines."""

import ast
import base64
import io
import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from mmvm.study import figures

ROOT = Path(__file__).resolve().parents[3]
DRAWING = [ROOT / "mmvm/study/figures.py", *sorted(path for path in (ROOT / "studies").rglob("*.py")
                                                   if "figsize" in path.read_text("utf-8"))]
# linear RGB as seen without one kind of cones: Machado, Oliveira and Fernandes 2009, severity 1
SEEN = {
    "all cones": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                            [0.004733, 0.691367, 0.303900]]),
}
APART = 12.0  # distance in CIELAB; about 2 can just be seen side by side
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                [0.0193339, 0.1191920, 0.9503041]])
WHITE = np.array([0.95047, 1.0, 1.08883])


def lab(colour: str, cones: str) -> np.ndarray:
    """CIELAB (D65) of a colour as somebody sees it."""
    rgb = np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(SEEN[cones] @ linear, 0, 1) / WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def close(colours: dict[str, str], cones: str) -> list[tuple[str, str, float]]:
    pairs = ((a, b, float(np.linalg.norm(lab(colours[a], cones) - lab(colours[b], cones))))
             for a, b in itertools.combinations(colours, 2))
    return [pair for pair in pairs if pair[2] < APART]


@pytest.mark.parametrize("cones", SEEN)
def test_methods_and_modalities_are_told_apart(cones):
    methods = {name: colour for name, colour in figures.METHOD_COLOURS.items() if ":" not in name}
    assert not close(methods, cones)
    assert not close({str(m): colour for m, colour in enumerate(figures.MODALITY_COLOURS)}, cones)


def test_the_simulation_finds_red_and_green_alike():
    red_and_green = {"red": "#B45A3C", "green": "#8A7A32"}
    assert close(red_and_green, "deuteranopia") and not close(red_and_green, "all cones")


def test_methods_have_markers_of_their_own():
    plain = [marker for name, marker in figures.METHOD_MARKERS.items() if ":" not in name]
    assert len(plain) == len(set(plain))


@pytest.mark.parametrize("path", DRAWING, ids=lambda path: str(path.relative_to(ROOT)))
def test_letters_have_nine_points_and_no_figure_is_wider_than_the_paper(path):
    """A wider figure would be shrunk, and its letters with it."""
    wrong = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.keyword) and node.arg in ("fontsize", "labelsize", "size"):
            size = node.value.value if isinstance(node.value, ast.Constant) else None
            if isinstance(size, (int, float)) and size < figures.SMALLEST:
                wrong.append(f"line {node.value.lineno}: {size} points")
        if isinstance(node, ast.keyword) and node.arg == "figsize":
            factor = ast.unparse(node.value.elts[0]).replace("WIDTH", "1")
            if factor.replace(".", "").replace("*", "").replace(" ", "").isdigit():
                wrong += [f"line {node.value.lineno}: {factor} of the width"] * (eval(factor) > 1)
    assert not wrong, wrong


@pytest.mark.parametrize("path", [path for path in sorted((ROOT / "book").glob("*.ipynb")) if path.stem != "intro"],
                         ids=lambda path: path.stem)
def test_no_committed_picture_is_larger_than_the_paper(path):
    outputs = (output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", []))
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    sizes = [Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures]
    with plt.rc_context():
        figures.use_style()
        most = (figures.WIDTH + 0.15) * plt.rcParams["figure.dpi"]  # what the notebook leaves white around it
    assert all(width <= most and height <= 1.5 * most for width, height in sizes), (sizes, most)


def test_the_style_has_no_smaller_letters():
    with plt.rc_context():
        figures.use_style()
        sizes = {name: plt.rcParams[name] for name in (
            "font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")}
    assert all(size >= 9 for size in sizes.values()), sizes


def test_names_stand_at_their_lines_and_apart():
    fig, ax = plt.subplots(figsize=(figures.WIDTH / 2, 3))
    for name, end in {"low": 0.0, "high": 1.0, "also high": 0.99}.items():
        ax.plot([0, 1], [3_400.5, 3_400 + end], label=name)  # no limits: far from those of empty axes
    figures.label_lines(ax)
    fig.draw_without_rendering()
    boxes = {text.get_text(): text.get_window_extent() for text in ax.texts}
    plt.close(fig)
    order = sorted(boxes, key=lambda name: boxes[name].y0)
    assert order == ["low", "also high", "high"]
    assert all(fig.bbox.y0 < box.y0 and box.y1 < fig.bbox.y1 for box in boxes.values())
    assert all(not boxes[a].overlaps(boxes[b]) for a, b in itertools.combinations(boxes, 2))


def test_over_beta_names_every_line_even_one_that_leaves_the_axes_or_ends_early():
    methods = [name for name in figures.METHOD_NAMES if ":" not in name][:8]  # as many as a grid has
    board = pd.DataFrame([{"method": name, "beta": beta, "probe": 0.42 + 0.02 * i + 0.05 * (beta < 4), "probe sd": 0.1}
                          for i, name in enumerate(methods) for beta in (1.0, 2.0, 4.0)])
    board.loc[(board["method"] == methods[0]) & (board["beta"] == 4), "probe"] = np.nan
    board.loc[(board["method"] == methods[1]) & (board["beta"] == 4), "probe"] = -1_000
    with plt.rc_context():
        figures.use_style()
        fig = figures.over_beta(board.assign(again=board["probe"]), {"probe": "probe", "again": "probe"}, {},
                                {"probe": (0.4, 0.6), "again": (0.4, 0.6)})
        fig.draw_without_rendering()
        ax = fig.axes[0]
        boxes = {text.get_text(): Text.get_window_extent(text) for text in ax.texts}
        size = ax.get_window_extent()
    plt.close(fig)
    assert set(boxes) == {figures.METHOD_NAMES[name] for name in methods}
    assert all(not boxes[a].overlaps(boxes[b]) for a, b in itertools.combinations(boxes, 2))
    assert all(box.x0 >= size.x1 and box.x1 <= fig.bbox.x1 for box in boxes.values())
    assert size.width > 0.2 * fig.bbox.width  # the names have not taken the figure's place


def test_over_beta_has_a_legend_where_all_lines_end_at_one_place():
    board = pd.DataFrame([{"method": name, "beta": beta, "probe": 0.5 + 0.01 * i * (beta < 4)}
                          for i, name in enumerate(list(figures.METHOD_NAMES)[:8]) for beta in (1.0, 4.0)])
    fig = figures.over_beta(board, {"probe": "probe"}, {}, {})
    named = [text.get_text() for text in fig.legends[0].get_texts()]
    plt.close(fig)
    assert not fig.axes[0].texts and len(named) == 8 == len(set(named))


def test_options_without_an_appearance_are_drawn_last_under_their_own_name():
    board = pd.DataFrame([{"method": name, "beta": beta, "probe": 0.1 * i}
                          for i, name in enumerate(["mvtcae", "mmvm:gate=soft,temperature=2", "mmvm", "mmvm:alpha=0.5"])
                          for beta in (1.0, 4.0)])
    assert figures.in_order(board["method"]) == ["mmvm", "mvtcae", "mmvm:alpha=0.5", "mmvm:gate=soft,temperature=2"]
    assert list(figures.by_method(board[board["beta"] == 1]).index) == figures.in_order(board["method"])
    fig = figures.over_beta(board, {"probe": "probe"}, {}, {})
    drawn = {line.get_label(): (line[0].get_color(), line[0].get_marker()) for line in fig.axes[0].containers}
    plt.close(fig)
    assert set(drawn) == {"MMVM", "MVTCAE", "MMVM, alpha=0.5", "MMVM, gate=soft,temperature=2"}
    assert len(set(drawn.values())) == 4
    assert "mmvm:alpha=0.5" not in figures.METHOD_NAMES


def test_ten_values_of_an_option_have_ten_looks():
    for option in ("alpha", "temperature", "load_balance"):
        names = [f"mmvm:{option}={i / 10}" for i in range(1, 11)]
        assert len({(figures.METHOD_COLOURS[name], figures.METHOD_MARKERS[name]) for name in names}) == 10


def test_a_name_that_is_no_methods_is_drawn_under_itself_in_a_grey():
    names = ["mine", "real: one", "mmvm"]
    assert [figures.METHOD_NAMES[name] for name in names] == ["mine", "real: one", "MMVM"]
    assert "mine" not in figures.METHOD_NAMES and figures.METHOD_NAMES.get("mine", "other") == "mine"
    red, green, blue = (figures.METHOD_COLOURS["mine"][at:at + 2] for at in (1, 3, 5))
    assert red == green == blue and figures.METHOD_MARKERS["mine"]
    fig = figures.matrices({"mmvm": np.eye(2), "mine": np.eye(2)}, ["a", "b"], "nats", (0, 1))
    titles = [ax.get_title() for ax in fig.axes[:2]]
    board = pd.DataFrame([{"method": name, "beta": beta, "probe": 0.5} for name in names for beta in (1.0, 4.0)])
    drawn = figures.over_beta(board, {"probe": "probe"}, {}, {})
    plt.close("all")
    assert titles == ["MMVM", "mine"] and len(drawn.axes[0].containers) == 3


@pytest.mark.parametrize("beta, text", [(0, "0"), (16, "16"), (0.0625, "1/16"), (0.0025, "1/400"),
                                        (1e-6, "$10^{-6}$"), (2.5e-4, r"$2.5 \cdot 10^{-4}$")])
def test_a_beta_on_an_axis_is_the_beta(beta, text):
    assert figures.fraction(beta) == text
