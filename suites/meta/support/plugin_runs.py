"""What a run of a project's suites left behind."""

from harness.gate.verdict import read
from harness.results.folder import Folder

#: Eight items of window 8: prefills of 7, 8, 9 and 29 tokens, two checks each.
SELECTED = "(visibility or values) and mistral/prefill and not then and float32/b1"
PREFILL_W = "values and mistral/prefill-w/float32/b1"
#: Seconds after which a check counts as hung: checks that end take a twentieth of that.
SOON = 6


def items(project):
    """Ids of the items that have a record, in order."""
    return [r.item for r in results(project).read_records()]


def results(project, out="reports/latest"):
    """The folder of a run's records."""
    return Folder(project.path / out)


def statuses(project):
    """Status of each record, by the id of its check and case."""
    return {r.item.partition("[")[2][:-1]: r.status for r in results(project).read_records()}


def verdict(project):
    """Records and verdict of the last run, as the gate reads them."""
    path = project.path
    return read(path / "reports" / "latest", path / "baselines", path / "suites/known_failures")
