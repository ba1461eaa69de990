"""From groups to what is shown: tests against the plain loss, tables, rows of results.json.

A group is what :func:`run_group`, :func:`run_several_labels` or :func:`run_fine_tuned` returned.
"""

from pathlib import Path

import numpy as np

from bert_theseus.imbalance.study.gaussian import bayes_measures
from bert_theseus.imbalance.study.measures import holm, paired_test, verdict
from bert_theseus.imbalance.study.runs import chosen
from bert_theseus.published import format_table
from bert_theseus.results import Row, replace_file

BASES = ("cross-entropy", "binary cross-entropy")
OWN_CHOICE = ("balanced accuracy", "macro F1", "accuracy", "micro F1")
HIDDEN = ("macro F1, balanced test",)
LEGEND = """Test sets, in %, mean ± standard deviation over seeds; each loss at the setting and number
of steps that dev chose. ↑ ↓: above, below plain cross-entropy in a paired t-test over seeds, p < 0.05;
⇑ ⇓: also after Holm's correction for the number of losses in the column (in the groups' tables the
second p). No mark: within the noise. Calibration error: lower is better."""


def criterion_of(group: dict) -> str:
    """What chooses the settings in the group's own table: balanced accuracy, or macro F1."""
    return next(m for m in ("balanced accuracy", "macro F1") if m in group["measures"])


def best_settings(group: dict, measure: str) -> dict:
    """family → setting and test values: chosen by ``measure`` itself where it is in OWN_CHOICE,
    else (worst recall, calibration error) by the group's own criterion."""
    return chosen(group, measure if measure in OWN_CHOICE else criterion_of(group))


def against_plain(found: dict, measure: str) -> dict:
    """family → paired test against plain cross-entropy with its verdict.

    p_holm: p corrected for the number of losses compared.
    """
    base = next(name for name in BASES if name in found)
    tests = {family: paired_test(values["test"][measure], found[base]["test"][measure])
             for family, values in found.items() if family != base}
    known = [family for family, test in tests.items() if test["p"] is not None]
    corrected = dict(zip(known, holm([tests[family]["p"] for family in known])))
    return {family: {**test, "p_holm": corrected.get(family), "verdict": verdict(test)}
            for family, test in tests.items()}


def group_table(group: dict, costs: dict | None = None, markdown: bool = False) -> str:
    """Losses by measures, mean ± deviation in %, the gain over plain cross-entropy, and the cost.

    One setting a loss, chosen on dev by :func:`criterion_of`. costs: family → microseconds.
    """
    criterion = criterion_of(group)
    found, shown = chosen(group, criterion), [m for m in group["measures"] if m not in HIDDEN]
    tests = against_plain(found, criterion)
    cells = [("loss", "setting", "steps", *shown, f"{criterion}: against plain",
              *(["loss, µs a step"] if costs else []))]
    for family, values in found.items():
        cost = costs and ["–" if family not in costs else f"{costs[family]:.0f}"]
        cells.append((family, values["setting"] or "–", values["steps"],
                      *(mean_and_deviation(values["test"][m]) for m in shown),
                      _against(tests.get(family)), *(cost or [])))
    return format_table(cells, markdown)


def summary_table(groups: dict, measure: str, markdown: bool = False) -> str:
    """Losses by groups: one measure, mean ± deviation in %.

    ↑ ↓: above or below plain cross-entropy in a paired test over seeds, p < 0.05; ⇑ ⇓: after
    Holm's correction for the number of losses as well.
    """
    found = {name: best_settings(group, measure) for name, group in groups.items()}
    tests = {name: against_plain(each, measure) for name, each in found.items()}
    families = list(dict.fromkeys(family for each in found.values() for family in each))
    cells = [("loss", *groups)]
    for family in families:
        cells.append((family, *(
            "–" if family not in found[name] else
            mean_and_deviation(found[name][family]["test"][measure])
            + _mark(tests[name].get(family)) for name in groups)))
    return format_table(cells, markdown)


def mean_and_deviation(values) -> str:
    """In %, e.g. 51.2 ± 0.8; without deviation for a single value."""
    text = f"{100 * np.mean(values):.1f}"
    return text + (f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def _mark(test) -> str:
    marks = {"better": " ↑⇑", "worse": " ↓⇓"}.get(test["verdict"] if test else None)
    return "" if marks is None else marks[0] + marks[2 if test["p_holm"] < 0.05 else 1]


def _against(test) -> str:
    if test is None:
        return "–"
    p = "" if test["p"] is None else f", p = {test['p']:.2g} ({test['p_holm']:.2g})"
    return f"{100 * test['difference']:+.1f}{p}: {test['verdict']}"


def claims_table(judged, markdown: bool = False) -> str:
    """Article, statement, verdict, the votes behind it and the mean difference in points."""
    cells = [("article", "statement", "verdict", "groups", "votes", "mean difference")]
    for claim in judged:
        behind = ", ".join(f"{claim[key]} {key}" for key in (
            "significantly above", "significantly below", "within margin", "need more steps")
            if key in claim)
        gaps = [vote["difference"] for vote in claim["votes"].values() if "difference" in vote]
        mean = "–" if not gaps else (
            f"{100 * np.mean(gaps):+.1f} ({100 * min(gaps):+.1f} … {100 * max(gaps):+.1f})")
        cells.append((claim["article"], claim["statement"], claim["verdict"], claim["groups"],
                      behind, mean))
    return format_table(cells, markdown)


def rows_of(name: str, group: dict, seeds) -> list[Row]:
    """A row for each loss and measure of a group, settings as :func:`best_settings` has them."""
    return [Row(f"{name}, {family}", measure, values["test"][measure], seeds=seeds)
            for measure in group["measures"]
            for family, values in best_settings(group, measure).items()]


def bayes_rows(name: str, corpus, imbalance: float, seeds) -> list[Row]:
    """What Bayes' rule with known centres reaches on the Gaussian task, by both rules."""
    return [Row(f"{name}, Bayes' rule, {rule}", measure, values, seeds=seeds)
            for rule in ("balanced", "overall")
            for measure, values in bayes_measures(corpus, imbalance, seeds, rule).items()]


def tests_of(group: dict) -> dict:
    """measure → family → :func:`against_plain`, for the measures in OWN_CHOICE."""
    return {m: against_plain(best_settings(group, m), m)
            for m in group["measures"] if m in OWN_CHOICE}


def settings_of(group: dict) -> dict:
    """measure → family → [setting, steps] as dev chose them."""
    return {m: {family: [v["setting"], v["steps"]] for family, v in best_settings(group, m).items()}
            for m in group["measures"] if m in OWN_CHOICE}


def write_tables(path: Path, groups: dict, panels: dict, costs: dict, judged) -> None:
    """All tables as Markdown: for each task a summary of each measure and its groups in detail.

    panels: task → imbalance → name of the group; costs: name → family → microseconds.
    """
    parts = ["# Losses for class imbalance: all tables", LEGEND]
    for task, names in panels.items():
        those = {name: groups[name] for name in names.values()}
        for measure in (m for m in next(iter(those.values()))["measures"] if m not in HIDDEN):
            by = measure if measure in OWN_CHOICE else "balanced accuracy"
            parts += [f"## {task}: {measure}, settings chosen on dev by {by}",
                      summary_table(those, measure, markdown=True)]
    for name, group in groups.items():
        parts += [f"## {name}: settings chosen on dev by {criterion_of(group)}",
                  group_table(group, costs.get(name), markdown=True)]
    if judged:
        parts += ["## The articles' statements", claims_table(judged, markdown=True)]
    text = "\n\n".join(parts) + "\n"
    replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))
