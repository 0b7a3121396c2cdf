"""The shape of the package: imports go down only, the public names are the documented ones, importing is light."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_args, get_origin, get_type_hints

import aiohttp
import pytest

import agentruns
from agentruns import a2a, conduit, dialects, langgraph, middesk, narrative, openai_responses, origami, tools
from agentruns.dialects.protocol import Dialect

PACKAGE = Path(agentruns.__file__).parent
ROOT = Path(__file__).parent.parent


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(name: str, path: Path) -> Iterator[str]:
    """Yield the modules of this package that a module imports when it runs; names for the type checker are free."""
    tree = ast.parse(path.read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    here = name.split(".") if path.name == "__init__.py" and name else name.split(".")[:-1]
    known = {module for module, _ in modules()}
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.ImportFrom):
            base = ".".join([*here, *([node.module] if node.module else [])]) if node.level else node.module or ""
            if not node.level and base.split(".")[0] != "agentruns":
                continue
            base = base if node.level else base.removeprefix("agentruns").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                yield inner if inner in known else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "agentruns":
                    yield alias.name.removeprefix("agentruns").lstrip(".")


def test_only_the_command_line_and_the_kit_of_tests_use_the_emulator() -> None:
    users = {
        name
        for name, path in modules()
        if not name.startswith(("emulator", "testing"))
        and any(other.startswith("emulator") for other in imported(name, path))
    }
    assert {name for name in users if not name.startswith("cli.stories.")} == {
        "cli.emulate",
        "cli.console",
        "cli.emulators",
    }


def test_the_emulator_knows_nothing_of_the_client() -> None:
    """It is written from the vendors' pages: what it shared with a dialect, one misreading could pass in both."""
    for name, path in modules():
        if name.startswith("emulator"):
            assert [other for other in imported(name, path) if not other.startswith("emulator")] == []


VENDORS_MAY_BE_NAMED_BY = {
    "__init__": "the vendors of this package are names of it",
    "_connect": "the types of a client follow from the name of a vendor",
    "blocking": "the types of a client follow from the name of a vendor",
    "emulator": "the emulators of this package are names of it",
    "emulator.pytest_plugin": "the types of an emulator follow from the name of a vendor",
    "emulator.server": "the types of an emulator follow from the name of a vendor",
}
"""The modules that may know a vendor by its name, besides those of vendors, and why."""


def names_in(path: Path) -> set[str]:
    """Return what a module names: in code, and as a text that is a name and nothing else."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.update(node.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            found.update((node.module or "").split("."))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def test_no_module_but_those_of_vendors_knows_one() -> None:
    """What is told of a vendor to people, its dialect says: else other vendors are shown worse."""
    vendors = set(dialects.NAMES)
    of_vendors = tuple(f"{house}.{name}" for house in ("dialects", "emulator", "cli.stories") for name in vendors)
    naming = {name for name, path in modules() if vendors & names_in(path) and not name.startswith(of_vendors)}

    assert {name or "__init__" for name in naming} - {"dialects"} == set(VENDORS_MAY_BE_NAMED_BY)


def test_no_page_of_the_console_knows_a_vendor() -> None:
    pages = [path for path in (PACKAGE / "console").rglob("*") if path.suffix in {".html", ".js", ".css"}]
    assert pages
    for path in pages:
        assert not [name for name in dialects.NAMES if name in path.read_text().lower()], path.name


CLIENT = {
    *("start", "fetch", "stream", "result", "resume", "cancel", "runs", "batch", "perform"),
    *("unfinished", "work", "prune", "stats", "events", "heard"),
}
RUN_STREAM = {"run", "outputs", "result", "leave", "aclose", "asend", "athrow"}


@pytest.mark.parametrize(("face", "documented"), [(agentruns.Client, CLIENT), (agentruns.RunStream, RUN_STREAM)])
def test_a_face_shows_the_documented_names_only(face: type, documented: set[str]) -> None:
    assert {name for name in dir(face) if not name.startswith("_")} == documented


def test_the_public_names_are_those_that_can_be_imported() -> None:
    assert all(getattr(agentruns, name) is not None for name in agentruns.__all__)
    assert len(set(agentruns.__all__)) == len(agentruns.__all__)
    assert set(agentruns.__all__) == set(dir(agentruns)), "what the module is made with is none of its names"
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        _ = agentruns.conect  # type: ignore[attr-defined]


def test_importing_the_package_imports_no_more_of_it_than_is_asked_for() -> None:
    program = "import sys, agentruns; print([name for name in sys.modules if name.startswith('agentruns.')])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
    program = "import sys; before = {*sys.modules}; import agentruns; agentruns.connect; print({*sys.modules} - before)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "'agentruns._connect'" in shown
    assert "'email'" not in shown
    assert "'sqlite3'" not in shown
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = agentruns.nonsense  # type: ignore[attr-defined]


def public_functions() -> Iterator[tuple[str, object]]:
    """Yield what users call: functions, methods and properties of the public classes, and how their values are made."""
    # By `connect`, `stream`, `events` and `batch`.
    made_by_calls = {agentruns.Client, agentruns.RunStream, agentruns.EventStream, agentruns.Batch}
    for name in agentruns.__all__:
        public = getattr(agentruns, name)
        if inspect.isfunction(public):
            yield name, public
        elif inspect.isclass(public):
            for inner, member in vars(public).items():
                function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                is_public = not inner.startswith("_") or (inner == "__init__" and public not in made_by_calls)
                if inspect.isfunction(function) and is_public:
                    yield f"{name}.{inner}", function


def classes_in(annotation: Any) -> Iterator[type]:
    """Yield the classes of this package that an annotation names."""
    for named in (annotation, get_origin(annotation)):
        if inspect.isclass(named) and named.__module__.startswith("agentruns"):
            yield named
    for part in get_args(annotation):
        for inner in part if isinstance(part, list) else [part]:  # a list holds the parameters of a callable
            yield from classes_in(inner)


def test_every_class_that_a_public_signature_names_can_be_imported() -> None:
    found = {id(getattr(house, name)) for house in (agentruns, dialects) for name in house.__all__}
    known = {"aiohttp": aiohttp} | {name: getattr(agentruns, name) for name in dialects.NAMES}
    internal = {tools.Tool}  # `Tools.find` is for streams
    for name, function in public_functions():
        for annotation in get_type_hints(function, localns=known).values():
            for named in set(classes_in(annotation)) - internal:
                assert id(named) in found, f"{name} names {named.__qualname__}, which users cannot import"


def defined_names() -> Iterator[str]:
    """Yield the classes and the aliases of types that the modules of this package define."""
    for _, path in modules():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
                yield ast.unparse(node.target)


def test_every_name_of_ours_in_a_signature_that_users_call_can_be_imported_from_the_package() -> None:
    """Aliases too: who wraps a call writes its signature again."""
    ours = {*defined_names()} - {"Tool"}  # `Tools.find` is for streams
    for name, function in public_functions():
        if name.startswith("Dialect.") or name.endswith(".__init__"):  # for writers of dialects: `agentruns.dialects`
            continue
        for annotation in inspect.get_annotations(cast(Any, function)).values():
            words = {node.id for node in ast.walk(ast.parse(str(annotation))) if isinstance(node, ast.Name)}
            assert words & ours <= set(agentruns.__all__), f"{name} names what users cannot import"


def test_every_dialect_satisfies_the_protocol_and_is_public() -> None:
    modules_are_dialects: list[Dialect] = [narrative, middesk, origami, conduit, openai_responses, a2a, langgraph]
    assert [dialect.NAME for dialect in modules_are_dialects] == list(dialects.NAMES)
    for name in dialects.NAMES:
        dialect = dialects.load(name)
        assert name == dialect.NAME
        assert name in agentruns.__all__


@pytest.mark.parametrize(
    "heavy",
    ["aiohttp", "cattrs", "msgspec", "rich", "docstring_parser", "agentruns.dialects.narrative", "agentruns.inbox"],
)
def test_importing_what_connects_does_not_import(heavy: str) -> None:
    program = f"import sys, agentruns; agentruns.connect; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_module_that_is_long_is_named_with_its_reason() -> None:
    """400 lines are the mark; a few more or less move none."""
    table = (ROOT / ".github" / "CONTRIBUTING.md").read_text().partition("Above 400 are")[2].partition("## Gates")[0]
    named = set(re.findall(r"`([\w/]+\.py)`", table))
    lines = {str(path.relative_to(PACKAGE)): path.read_text().count("\n") for path in PACKAGE.rglob("*.py")}

    assert named <= {name for name, count in lines.items() if count > 360}, "strike out what is long no more"
    assert {name for name, count in lines.items() if count > 440} <= named
