"""`harness list`: the names that other commands take."""

from __future__ import annotations

from importlib import metadata

from harness.cli.common import console


def list_() -> None:
    """List subjects, models and schedules."""
    from rich.table import Table
    from rich.text import Text

    from harness.cases import schedules
    from harness.cases.models import TINY
    from harness.run import registry

    screen = console()
    subjects = Table("subject", "version", "schemes", box=None, pad_edge=False)
    for name in registry.names():
        subjects.add_row(name, *_installed(name))
    models = Table("model", "scheme", "layers", "window", "sink", box=None, pad_edge=False)
    for m in TINY.values():
        turn = f"chunk {m.chunk}" if m.chunk else str(m.window or "-")
        models.add_row(m.name, m.scheme, str(m.n_layers), turn, str(m.sink or "-"))
    names = [schedule.name for make in schedules.FAMILIES for schedule in make(8)]
    screen.print(subjects)
    screen.print()
    screen.print(models)
    screen.print(Text(f"\nschedules: {', '.join(names)}"))


def _installed(name: str) -> tuple[str, str]:
    """Version and schemes of a registered subject, or why it has none.

    Our own are not imported, nor are the packages that they adapt: that would take seconds.
    """
    from harness import __version__
    from harness.run import registry
    from harness.run.declared import declared

    try:
        said = declared(*registry.place(name))
        version = metadata.version(said.package) if said.package else __version__
    except ValueError:  # another project's, or one that only its class can describe
        return _loaded(name)
    except metadata.PackageNotFoundError:
        return "-", f"{said.package} is not installed"
    return version, ", ".join(sorted(said.schemes))


def _loaded(name: str) -> tuple[str, str]:
    from harness.run import registry

    try:
        target = registry.load(name)
    except registry.NotInstalled as absent:
        return "-", str(absent)
    except registry.TargetError as broken:
        return "-", f"cannot be loaded: {broken}"
    return target.version, ", ".join(sorted(target.schemes))
