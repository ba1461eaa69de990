"""The article's statements (https://kexue.fm/archives/8009) with verdicts from measured numbers.

A verdict is "holds", "approximately" or "not", by the two thresholds written beside each number.
"""

from collections.abc import Mapping

from bert_theseus.path_kernel.report import Report, verdict


def add_statements(report: Report, name: str, slopes: Mapping[str, float] | None) -> None:
    """Judges by the rows of the problem ``name``, means over its seeds.

    slopes: of the residual over the rate, for problems that were studied as a whole.
    """
    def mean(what, metric="residual / change"):
        return report.mean(f"{name}: {what}", metric)
    _sums(report, name, mean)
    if slopes:
        report.claim("f_T is the kernel sum, exactly as the rate → 0",
                     verdict(-abs(slopes["left"] - 1), -0.15, -0.4),
                     ", ".join(f"{rule}: residual ∝ rate^{s:.2f}" for rule, s in slopes.items()))
        _kernel(report, mean)
        _uses(report, mean)


def add_convex(report: Report, name: str) -> None:
    """A last layer alone: the loss is convex in what is trained."""
    residual = report.mean(f"{name}: last layer, simpson", "residual / change")
    spread = report.mean(f"{name}: α over x, median", "spread / size")
    report.claim("a convex problem's solution is a kernel machine",
                 verdict(max(residual, spread), 1e-3, 0.1),
                 f"last layer: residual {residual:.1e} of the change, α's spread over x "
                 f"{spread:.1e} of its size")


def _sums(report, name, mean):
    left, simpson = mean("full batch, left"), mean("full batch, simpson")
    report.claim(f"the sum at the real, finite rate ({name})", verdict(left, 0.01, 0.2),
                 f"residual {left:.1%} of the change (left point), {simpson:.1e} (Simpson)")
    noisy, exact = mean("mini-batches, left"), mean("mini-batches, simpson")
    report.claim(f"SGD: the path is noisy, the rest stands ({name})", verdict(exact, 1e-3, 0.1),
                 f"mini-batches: {noisy:.1%} (left point), {exact:.1e} (Simpson)")


def _kernel(report, mean):
    kept = mean("contributions by one α for all x", "explained")
    report.claim("α depends weakly on x", verdict(kept, 0.95, 0.7),
                 f"one α for all x explains {kept:.1%} of held-out contributions; median spread of "
                 f"α over x {mean('α over x, median', 'spread / size'):.0%} of its size")
    beta = mean("β over x, beside the sum", "spread / spread")
    report.claim("β depends on x", verdict(beta, 0.05, 0.01),
                 f"its spread over x is {beta:.0%} of the sum's")
    matrix = mean("of K's norm that is no multiple of the unit matrix", "share")
    report.claim("for vector outputs K is a matrix", verdict(matrix, 0.05, 0.01),
                 f"{matrix:.0%} of its norm is no multiple of the unit matrix")
    agree = mean("SVM, path kernel", "agreement")
    own = mean("path kernel, one α for all x", "agreement")
    report.claim("SGD ≈ SVM", verdict(agree, 0.98, 0.85),
                 f"the network's label is given by an SVM on the path kernel for {agree:.1%}, by "
                 f"the path kernel with one α for all x for {own:.1%}")


def _uses(report, mean):
    ratio, strict = (mean(f"top over random{more}", "ratio") for more in
                     ("", " of the same labels"))
    ahead = mean("of draws in which top changes more than random", "share")
    guessed = mean("guessed over real change", "ratio")
    report.claim("gradient products find the explaining examples", verdict(strict, 2.0, 1.2),
                 f"training without them changes the output {ratio:.1f}× as much as without random "
                 f"ones (more in {ahead:.0%} of the draws), {strict:.1f}× as without random ones "
                 f"of the same labels; the contributions alone would say {guessed:.1f}× the real "
                 "change")
    joined = mean("second half after the first, terms joined")
    report.claim("incremental learning adds terms", verdict(joined, 1e-3, 0.1),
                 f"residual of the joined sum {joined:.1e} of the change")
    added = mean("kernels of two halves, added", "deviation")
    outputs = mean("outputs of two halves, added", "error / change")
    report.claim("(a reader) two data sets' kernels add up", verdict(added, 0.01, 0.1),
                 f"contributions off by {added:.0%}, outputs by {outputs:.0%} of the change")
