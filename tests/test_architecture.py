"""The rooms and the directions in which they may import, as the design draws them."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "modelyard"
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "wire": {"core"},
    "registry": {"core"},
    "forms": {"core", "registry"},
    "engines": {"core"},
    "launchers": {"core", "engines"},
    "gateway": {"core", "wire", "guard", "observe"},
    "state": {"core"},
    "control": {
        "core", "wire", "registry", "forms", "engines", "launchers", "state", "observe",
    },
    "optimize": {"core", "registry", "forms", "engines"},
    "quality": {"core", "state", "observe"},
    "guard": {"core"},
    "observe": {"core", "state"},
    "api": {"core", "registry", "state", "observe"},
    "client": {"core", "registry", "state", "observe", "api"},
    "conformance": {"core", "wire", "engines"},
    "dashboard": {"client"},
    "demo": set(),
    "settings": {"core"},
}  # fmt: skip
"""`api` and `client` are one room in the design: the client speaks the API's messages."""
ROOTS = {"cli", "__init__", "__main__"}
"""They build the parts and hand them to each other: they may import anything."""
CORE_MAY_IMPORT = {"msgspec"}
CORE_MUST_NOT_IMPORT = {
    "asyncio", "datetime", "io", "logging", "multiprocessing", "os", "random",
    "secrets", "shutil", "socket", "subprocess", "sys", "tempfile", "threading", "time", "urllib",
    "uuid",
}  # fmt: skip
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc", "shared", "manager"}
LONGEST_FILE = 400
GLOBAL_STATE = {"dict", "list", "set", "defaultdict", "deque", "Lock", "ContextVar"}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def _id(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _room(module: str) -> str | None:
    """`core` of `modelyard.core.routes`; None for what is not ours."""
    parts = module.split(".")
    if parts[0] != "modelyard":
        return None
    return parts[1] if len(parts) > 1 else "__init__"


def _module(path: Path) -> str:
    return ".".join(("modelyard", *path.relative_to(PACKAGE).with_suffix("").parts))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that the file names in an import, wherever it stands, with its line."""
    return _imports(path.read_text(), _module(path))


def _imports(source: str, module: str) -> Iterator[tuple[int, str]]:
    tree = ast.parse(source, module)
    package = module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                upwards = package[: len(package) - node.level + 1]
                base = ".".join([*upwards, base] if base else upwards)
            yield node.lineno, base
            if base == "modelyard":
                for alias in node.names:
                    yield node.lineno, f"modelyard.{alias.name}"


def test_every_kind_of_import_is_seen() -> None:
    source = (
        "import modelyard.cli\n"
        "from modelyard import client\n"
        "from ..gateway import main\n"
        "if TYPE_CHECKING:\n    from modelyard.state.store import Store\n"
        "def later():\n    from .. import api\n"
    )

    seen = {_room(module) for _, module in _imports(source, "modelyard.core.routes")}

    assert seen >= {"cli", "client", "gateway", "state", "api"}


def _is_root(path: Path) -> bool:
    return path.name == "main.py" or _room(_module(path)) in ROOTS


@pytest.mark.parametrize("path", SOURCES, ids=_id)
def test_imports_go_one_way(path: Path) -> None:
    room = _room(_module(path))
    assert room is not None
    if _is_root(path):
        return
    assert room in MAY_IMPORT, f"the room {room} is not in the design's table"
    allowed = MAY_IMPORT[room] | {room, "__init__"}

    wrong = [
        f"{_id(path)}:{line} imports {module}"
        for line, module in imports(path)
        if (target := _room(module)) is not None and target not in allowed
    ]

    assert wrong == []


@pytest.mark.parametrize("path", [p for p in SOURCES if _id(p).startswith("core/")], ids=_id)
def test_core_touches_nothing(path: Path) -> None:
    wrong = []
    for line, module in imports(path):
        top = module.partition(".")[0]
        foreign = top not in sys.stdlib_module_names and top not in {"modelyard", *CORE_MAY_IMPORT}
        if foreign or top in CORE_MUST_NOT_IMPORT:
            wrong.append(f"{_id(path)}:{line} imports {module}")

    assert wrong == []


@pytest.mark.parametrize("path", SOURCES, ids=_id)
def test_a_file_is_named_for_what_it_holds(path: Path) -> None:
    assert not NAMELESS & {part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts}


@pytest.mark.parametrize("path", SOURCES, ids=_id)
def test_no_module_keeps_state(path: Path) -> None:
    """No `global`, no empty container or lock at module level that something could fill later."""
    tree = ast.parse(path.read_text(), str(path))
    wrong = [
        f"{_id(path)}:{node.lineno} global"
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
    ]
    for node in tree.body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if value is not None and _holds_state(value):
            wrong.append(f"{_id(path)}:{node.lineno} {ast.unparse(node)}")

    assert wrong == []


def _holds_state(value: ast.expr) -> bool:
    if isinstance(value, ast.Dict):
        return not value.keys
    if isinstance(value, ast.List):
        return not value.elts
    if isinstance(value, ast.Call):
        called = value.func.attr if isinstance(value.func, ast.Attribute) else ""
        called = value.func.id if isinstance(value.func, ast.Name) else called
        return called in GLOBAL_STATE and not value.args
    return False


@pytest.mark.parametrize("path", SOURCES, ids=_id)
def test_a_long_file_says_why(path: Path) -> None:
    lines = path.read_text().splitlines()
    if len(lines) <= LONGEST_FILE:
        return
    docstring = ast.get_docstring(ast.parse("\n".join(lines))) or ""

    assert "long" in docstring.lower() or "one file" in docstring.lower(), (
        f"{_id(path)} has {len(lines)} lines: split it, or say at its top why it is that long"
    )


def test_the_rooms_are_those_of_the_design() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}

    assert folders <= set(MAY_IMPORT) | ROOTS
