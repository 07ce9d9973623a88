"""Figures of a comparison: what is drawn is what was given, and what cannot be drawn is said."""

import numpy as np
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.text import Text
from sklearn.metrics import roc_auc_score

from hf_cxr.evaluation import headline_metrics
from hf_cxr.reporting import description_plots, plots
from hf_cxr.reporting.comparison import drawings

NAMES = ("Effusion", "Hernia")


def lines(axis):
    return [line.get_ydata() for line in axis.get_lines()]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_losses_are_drawn_as_given_and_the_infinite_ends_are_cut():
    prob_K = np.linspace(0.001, 0.999, 999)
    curves = {"BCE": (-np.log(prob_K), -np.log(1 - prob_K)), "half": (-0.5 * np.log(prob_K), 0.01 * prob_K)}
    figure = drawings.loss_over_probability(curves, prob_K, "title")
    present, absent = figure.axes
    for axis, side in ((present, 0), (absent, 1)):
        for drawn, (label, pair) in zip(lines(axis), curves.items(), strict=True):
            np.testing.assert_array_equal(drawn, pair[side], err_msg=label)
    assert legend(figure) == ["BCE", "half"]
    assert present.get_ylim()[1] == pytest.approx(1.05 * -np.log(0.05), rel=0.01)
    own = drawings.loss_over_probability({"half": curves["half"]}, prob_K, "title", one_scale=False).axes
    assert own[1].get_ylim()[1] < 0.02 < own[0].get_ylim()[1]
    assert "another scale" in own[1].get_title()
    assert "another scale" not in absent.get_title()


def test_methods_differ_in_dash_and_not_in_colour_alone():
    for number in range(8):
        for other in range(number):
            one, two = plots.line_style(number), plots.line_style(other)
            assert one["color"] != two["color"]
            assert one["linestyle"] != two["linestyle"]
    assert plots.line_style(8) != plots.line_style(0)


def test_mean_probabilities_are_placed_by_finding_frequent_first():
    means = {"BCE": (np.array([0.2, 0.7]), np.array([0.1, 0.3]))}
    figure = drawings.mean_probability(means, np.array([0.05, 0.3]), NAMES, "title")
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["Hernia", "Effusion"]
    present, absent, prevalence = (dots.get_offsets()[:, 0].tolist() for dots in axis.collections[1:])
    assert (present, absent, prevalence) == ([0.7, 0.2], [0.3, 0.1], [0.3, 0.05])


def test_mean_roc_curve_has_the_mean_area():
    rng = np.random.default_rng(0)
    label_NC = (rng.random((300, 2)) < 0.4).astype(float)
    label_NC[:, 1] = 0
    label_NC[::7, 0] = np.nan
    runs = [np.nan_to_num(label_NC) + rng.normal(size=label_NC.shape) for _ in range(3)]
    figure = drawings.roc_comparison({"A": runs, "B": [-run for run in runs]}, label_NC, NAMES, "title")
    axis, empty = figure.axes[:2]
    known = ~np.isnan(label_NC[:, 0])
    areas = [roc_auc_score(label_NC[known, 0], run[known, 0]) for run in runs]
    _, better, worse = axis.get_lines()
    assert np.trapezoid(better.get_ydata(), better.get_xdata()) == pytest.approx(np.mean(areas), abs=0.005)
    assert np.trapezoid(worse.get_ydata(), worse.get_xdata()) == pytest.approx(1 - np.mean(areas), abs=0.005)
    assert legend(figure) == ["A", "B"]
    assert "no curve" in empty.texts[0].get_text()


def test_training_curves_are_means_over_the_epochs_that_all_runs_have():
    history = [
        [{"epoch": 1, "eval_auc": 0.5, "eval_loss": 1.0}, {"epoch": 2, "eval_auc": 0.7}, {"epoch": 3, "eval_auc": 1}],
        [{"epoch": 0.5, "loss": 2.0}, {"epoch": 1, "eval_auc": 0.6}, {"epoch": 2, "eval_auc": 0.5}],
    ]
    figure = drawings.training_comparison({"BCE": history, "none": [[]]})
    curves = lines(figure.axes[0])
    assert [list(curve) for curve in curves[:2]] == [[0.5, 0.7, 1], [0.6, 0.5]]
    np.testing.assert_allclose(curves[2], [0.55, 0.6])
    assert len(curves[-1]) == 0
    losses = [list(curve) for curve in lines(figure.axes[len(headline_metrics())])]
    assert sorted(losses) == [[], [], [1.0], [2.0]]


def test_differences_stand_beside_zero_with_their_intervals():
    methods = {"A": (0.1, 0.05, 0.2, [0.1, 0.12]), "B": (-0.1, -0.3, 0.1, [])}
    shown = {"AUC": methods, "mAP": dict.fromkeys(methods, (0, 0, 0, [0]))}
    figure = drawings.differences(shown, "BCE", "title")
    axis = figure.axes[0]
    intervals = [line.get_xdata() for line in axis.get_lines() if len(np.unique(line.get_ydata())) == 1]
    assert [0.05, 0.2] in [list(interval) for interval in intervals]
    assert axis.get_xlabel() == "AUC minus that of BCE"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["A", "B"]


HOSTILE = (r"$\frac{$", "_hidden", "a_b^c%|<b>&amp;\"'", "\N{LUNGS} 肺", "long " * 60, "$", r"\$x$ {", "two\nlines")


def drawn(figure):
    """The figure's texts as they are drawn: a formula would raise or lose its dollars."""
    figure.set_layout_engine("none")  # it draws every text again and again to find the room that it needs
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert not any(is_math_text(text.get_text()) for text in texts)
    return [text.get_text().replace(r"\$", "$") for text in texts]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_every_figure_draws_any_name_as_it_is():
    rng = np.random.default_rng(0)
    count, names = len(HOSTILE), list(HOSTILE)
    label_NC = (rng.random((60, count)) < 0.5).astype(float)
    score_NC = rng.random((60, count))
    counts = rng.integers(1, 50, (2, count))
    history = [{"epoch": 1, "eval_auc": 0.5, "eval_loss": 1.0, "loss": 2.0}]
    pair = (np.linspace(0.1, 0.9, count), np.linspace(0.1, 0.5, count))
    curves = {name: (np.linspace(1, 2, 50), np.linspace(2, 1, 50)) for name in names}
    methods = {name: (0.1, 0.05, 0.2, [0.1]) for name in names}
    title = r"$\frac{$ " + "long " * 60
    figures = {
        "methods": drawings.roc_comparison({name: [score_NC] for name in names}, label_NC, names, title),
        "probability": drawings.mean_probability(dict.fromkeys(names, pair), pair[0], names, title),
        "loss": drawings.loss_over_probability(curves, np.linspace(0, 1, 50), title),
        "differences": drawings.differences({r"$\AUC": methods}, names[0], title),
        "training": drawings.training_comparison({name: [history] for name in names}),
        "pairs": description_plots.co_occurrence(
            np.ones((count, count), int), np.full((count, count), 0.5), names, title
        ),
        "images": description_plots.findings_per_image({name: {0: 1, 1: 2} for name in names}, title),
    }
    for kind, figure in figures.items():
        texts = drawn(figure)
        assert any(r"$\frac{$" in text for text in texts), kind
        assert not any("two\nlines" in text for text in texts), kind
    # A logarithmic axis labels its ticks with formulas of matplotlib's own.
    counts = description_plots.finding_counts({name: tuple(counts) for name in names[:2]}, names, title)
    counts.draw_without_rendering()
    assert [text for text in legend(figures["methods"]) if text.endswith("_hidden")]
