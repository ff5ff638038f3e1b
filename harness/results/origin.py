"""Which run it was: when it began, and of which commit and branch."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.results.folder import RunInfo

_RUN_ID = re.compile(r"(\d{8}T\d{6})-\w+")
_SECONDS = 10.0  # that git may take; a checkout on a slow disk must not hold up a run
#: Where CI services name the branch: they check out a commit, so that git itself knows of none.
_CI_BRANCH = ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME", "BUILDKITE_BRANCH")
_SHORT = 12  # characters of a commit that people read


def note(info: RunInfo) -> None:
    """Write into `info` the time, and the commit and branch of the working directory.

    Both stay empty where there is no git or no repository.
    """
    info.began = datetime.now().astimezone().isoformat(timespec="seconds")
    info.commit = _git("rev-parse", "--verify", "HEAD")
    if not info.commit:
        return
    info.changed = bool(_git("status", "--porcelain", "--untracked-files=no"))
    named = (os.environ.get(name, "") for name in _CI_BRANCH)
    info.branch = _git("symbolic-ref", "--quiet", "--short", "HEAD") or next(
        filter(None, named), ""
    )


def said(info: RunInfo) -> str:
    """The run in one line: "run 20261124T030000-0004, 24 Nov 2026 03:00, commit 1a2b3c on main"."""
    parts = [f"run {info.run or 'without an id'}"]
    if began := began_at(info):
        parts.append(began)
    if info.commit:
        commits = ", ".join(commit[:_SHORT] for commit in info.commit.split(", "))
        changed = " with changes that are not committed" if info.changed else ""
        branch = f" on {info.branch}" if info.branch else ""
        parts.append(f"commit {commits}{changed}{branch}")
    return ", ".join(parts)


def began_at(info: RunInfo) -> str:
    """When the run began, "24 Nov 2026 03:00 UTC+01:00"; from its id where nothing else says."""
    try:
        time = datetime.fromisoformat(info.began)
    except ValueError:
        made = time_of(info.run)
        return _day_and_time(made) if made else ""
    zone = time.strftime(" %Z").rstrip()
    return _day_and_time(time) + zone


def since(run: str, runs: int, now: str) -> str:
    """Since when, for people: "24 Nov (run 0004, 2 runs)".

    run: id of the first run.  runs: how many there have been from it on.  now: id of the last run,
    whose year need not be said.  An id that holds no time is given as it is.
    """
    count = f"{runs} run{'s' if runs != 1 else ''}"
    time, last = time_of(run), time_of(now)
    if time is None:
        return f"{run} ({count})"
    year = "" if last and last.year == time.year else f" {time.year}"
    return f"{time.day} {time:%b}{year} (run {run.rpartition('-')[2]}, {count})"


def time_of(run: str) -> datetime | None:
    """When a run with this id began, on its own machine's clock; None if the id does not say."""
    found = _RUN_ID.fullmatch(run)
    try:
        return datetime.strptime(found[1], "%Y%m%dT%H%M%S") if found else None
    except ValueError:
        return None


def _day_and_time(time: datetime) -> str:
    return f"{time.day} {time:%b} {time.year} {time:%H:%M}"


def _git(*arguments: str) -> str:
    """What git prints; "" where it fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            check=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
