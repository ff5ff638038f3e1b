"""Targets load by name, module and file; every mistake gets one line that says what to do."""

import subprocess
import sys

import pytest
from subject_files import BAD, GOOD

from harness.run import registry
from harness.run.registry import NotInstalled, TargetError, load

#: Frameworks of the subjects, and parts of torch that a collection does not need.
HEAVY = {"coremltools", "executorch", "transformers", "mlx", "torch._dynamo", "sympy", "pandas"}
LOADED = f"""
import sys
from harness.run import registry
for name in registry.names():
    try:
        registry.load(name)
    except registry.NotInstalled:
        pass
print(sorted({HEAVY} & set(sys.modules)))
"""


def test_loading_every_subject_imports_none_of_their_frameworks():
    """Every worker of every run pays for what a collection imports."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A target's folder becomes importable; one with a json.py must not stay so.
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "bad.py").write_text(BAD)
    return tmp_path


def test_a_file_is_loaded_with_its_neighbours(folder):
    (folder / "parts.py").write_text(GOOD)
    (folder / "mine.py").write_text("from parts import Mine\n")
    assert load("mine.py:Mine").name == "mine"
    assert load(str(folder / "mine.py") + ":Mine").subject is load("mine.py:Mine").subject


def test_a_module_is_loaded_from_the_working_folder(folder):
    (folder / "module_of_theirs.py").write_text(GOOD)
    assert load("module_of_theirs:Mine").name == "mine"


def test_a_file_may_have_the_name_of_an_installed_module(folder):
    (folder / "json.py").write_text(GOOD)
    assert load("json.py:Mine").name == "mine"


@pytest.mark.parametrize("name", registry.names())
def test_every_registered_subject_loads_or_is_not_installed(name):
    target = installed(name)
    assert target is None or (target.name == target.subject.name == name and target.version)


def test_every_suite_that_a_subject_names_is_there(pytestconfig):
    suites = {path.stem for path in (pytestconfig.rootpath / "suites").glob("test_*.py")}
    found = (installed(name) for name in registry.names())
    named = {target.suite for target in found if target is not None} - {""}
    assert {f"test_{suite}" for suite in named} <= suites


def installed(name):
    """The registered subject; None where its package is not installed."""
    try:
        return load(name)
    except NotInstalled:
        return None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def (:\n", r"own.py, line 1: syntax error"),
        ("x = 1\n\nx / 0\n", r"own.py, line 3: ZeroDivisionError: division by zero"),
        ("import nothing_of_that_name\n", r"own.py, line 1: ModuleNotFoundError"),
        ("import sys\nsys.exit(0)\n", r"own.py, line 2: SystemExit: 0"),
        ("x = 1\0\n", r"own.py: syntax error: source code string cannot contain null bytes"),
        ("", r"no class Mine; classes there: none"),
        ("class Mime: ...\n", r"no class Mine; did you mean Mime\?"),
        ("Mine = 3\n", r"Mine is a int, not a class"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_its_line(folder, text, expected):
    (folder / "own.py").write_text(text)
    with pytest.raises(TargetError, match=expected) as caught:
        load("own.py:Mine")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NoMethods", r"NoMethods needs exactly one of the methods attend\(.*new_cache.*open"),
        ("NoScheme", r"NoScheme.schemes must be .*'uniform'.*got None"),
        ("WrongScheme", r"WrongScheme.schemes must be .*got .*'unform'"),
        ("NeedsArguments", r"makes instances with no arguments.*'size'"),
        ("BrokenConstructor", r"BrokenConstructor\(\) raised KeyError: 'weights'"),
        ("function", r"function is a function, not a class"),
        ("Mime", r"no class Mime; did you mean Mine"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_class_that_is_no_subject_is_told_what_it_lacks(name, expected):
    with pytest.raises(TargetError, match=expected) as caught:
        load(f"bad.py:{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a\nb", "a/b", "a,b", "a|b", "größe", "x" * 999 + "!"]
)
def test_a_name_that_is_no_column_nor_file_is_refused(folder, name):
    (folder / "own.py").write_text(GOOD.replace('"mine"', repr(name)))
    with pytest.raises(
        TargetError, match=r"Mine.name must consist of letters, digits and \. _ -"
    ) as caught:
        load("own.py:Mine")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("nothere.py:Mine", "no such file: nothere.py"),
        ("bad.py", "names no class; write path/to/file.py:Name"),
        ("bad.py:", "names no class"),
        ("no_such_module:Mine", "no module named 'no_such_module'"),
        ("harness.no_such_module:Mine", "no module named 'harness.no_such_module'"),
        ("executorch.statics", "did you mean executorch.static"),
        ("xyzzy", "allowed: a registered name, package.module:Name or path/to/file.py:Name"),
        ("", "unknown target ''"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_target_that_is_not_there_is_told_what_is(target, expected):
    with pytest.raises(TargetError, match=expected):
        load(target)


def test_a_package_that_is_absent_is_not_installed(folder):
    text = GOOD.replace('    name = "mine"', '    name = "mine"\n    package = "no-such-package"')
    (folder / "own.py").write_text(text)
    with pytest.raises(NotInstalled, match="no-such-package is not installed"):
        load("own.py:Mine")


def test_a_file_that_takes_a_registered_name_is_filed_under_its_target(folder):
    text = GOOD.replace('"mine"', '"executorch.static"')
    (folder / "own.py").write_text(text)
    assert load("own.py:Mine").name == "own.py:Mine"
    assert load("bad.py:Mine").name == "mine"


@pytest.mark.usefixtures("folder")
def test_a_file_of_others_has_no_version():
    assert load("bad.py:Mine").version == ""


def test_a_check_that_does_not_exist_is_told_which_do(folder):
    """A misspelt name would silently leave its check out of the plan."""
    text = GOOD.replace('name = "mine"', 'name = "mine"\n    checks = frozenset({"valeus"})')
    (folder / "own.py").write_text(text)
    with pytest.raises(TargetError, match=r"Mine.checks must be .*values.*got .*'valeus'"):
        load("own.py:Mine")


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99", "cpu:1"])
def test_a_device_that_torch_does_not_have_here_is_refused(folder, device):
    """Everything would run on the CPU, and every record would name the device."""
    (folder / "own.py").write_text(
        GOOD.replace('name = "mine"', f'name = "mine"\n    device = "{device}"')
    )
    with pytest.raises(TargetError, match=rf"Mine.device must be .*here, cpu.*got '{device}'"):
        load("own.py:Mine")


def test_a_dtype_that_nothing_rounds_to_is_refused(folder):
    text = GOOD.replace('name = "mine"', 'name = "mine"\n    stored = "int8"')
    (folder / "own.py").write_text(text)
    with pytest.raises(TargetError, match=r"Mine.stored must be one of .*float16.*got 'int8'"):
        load("own.py:Mine")


def test_what_a_class_offers_is_read_once(folder):
    text = GOOD.replace(
        'name = "mine"',
        'name = "mine"\n    suite = "sliced_q"\n    device = "cpu"\n    checks = {"values"}',
    )
    (folder / "own.py").write_text(text)
    target = load("own.py:Mine")
    assert (target.target, target.body, target.version) == ("own.py:Mine", "cache", "")
    assert (target.suite, target.device, target.checks) == ("sliced_q", "cpu", {"values"})
    assert target.offers >= {"suite", "checks"}
    assert not target.offers & {"package", "exportable", "lowered", "covers"}
