"""Imports go one way, files and functions stay small, and starting the program is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"mlipdb": "mlipdb", "trainers": "mlipdb.trainers", "cli": "mlipdb.cli", "migrations": "mlipdb.migrations"}

# From the top down; a module may import its own layer and those below it. The longest matching prefix counts, and a
# name that ends in a dot stands for what is inside a package but not for the package's own table of contents.
LAYERS = (
    ("mlipdb.cli",),
    ("mlipdb.trainers.finetune", "mlipdb.trainers.distill", "mlipdb.trainers.quickstart"),
    (
        "mlipdb.trainers", "mlipdb.trainers.loop", "mlipdb.trainers.train", "mlipdb.trainers.report",
        "mlipdb.trainers.forgetting",
        "mlipdb.trainers.calculator", "mlipdb.trainers.found_model", "mlipdb.trainers.foundation_place",
        "mlipdb.trainers.checkpoint_facts",
    ),
    ("mlipdb.teachers",),
    (
        "mlipdb.trainers.evaluate", "mlipdb.trainers.train_state", "mlipdb.trainers.checkpoint",
        "mlipdb.trainers.prepare", "mlipdb.trainers.foundation", "mlipdb.trainers.foundation_weights",
        "mlipdb.trainers.replay_data",
    ),
    ("mlipdb.trainers.", "mlipdb.testing.models", "mlipdb.testing.training"),
    (
        "mlipdb.ingest", "mlipdb.labelling", "mlipdb.subsets", "mlipdb.export", "mlipdb.stats", "mlipdb.testing",
        "mlipdb.generate",
    ),
    ("mlipdb", "mlipdb.", "mlipdb.database", "mlipdb.query"),
    ("mlipdb.catalog", "mlipdb.store", "mlipdb.migrations"),
    (
        "mlipdb.structures", "mlipdb.labels", "mlipdb.units", "mlipdb.errors", "mlipdb.records", "mlipdb.manifest",
        "mlipdb.version", "mlipdb.registry", "mlipdb.selection", "mlipdb.download", "mlipdb.collector", "mlipdb.finite",
    ),
)  # fmt: skip
DEPTH = {prefix: depth for depth, prefixes in enumerate(LAYERS) for prefix in prefixes}
HEAVY = ("jax", "equinox", "optax", "torch", "typer", "e3nn_jax")


def modules() -> dict[str, Path]:
    found = {}
    for folder, name in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((name, *(part for part in parts if part != "__init__")))] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def layer(module: str) -> int:
    def covers(prefix: str) -> bool:
        return module.startswith(prefix) if prefix.endswith(".") else f"{module}.".startswith(f"{prefix}.")

    def rank(prefix: str) -> tuple[bool, int]:
        return prefix == module, len(prefix)

    return DEPTH[max(filter(covers, DEPTH), key=rank)]


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in MODULES else node.module
                      for alias in node.names}  # fmt: skip
    return names


IMPORTS = {name: imported(tree) for name, tree in TREES.items()}


@pytest.mark.parametrize("module", [name for name in MODULES if ".migrations" not in name])
def test_a_module_imports_only_its_own_layer_and_those_below(module):
    upward = {name for name in IMPORTS[module] if name in MODULES and layer(name) < layer(module)}
    assert not upward, f"{module} imports {sorted(upward)}, which lie above it; see LAYERS in this file"


def test_query_does_not_import_the_database():
    for module in MODULES:
        if module.startswith("mlipdb.query"):
            assert "mlipdb.database" not in IMPORTS[module], module


def test_no_module_is_in_an_import_cycle():
    done, path = set(), []

    def visit(module):
        assert module not in path, f"import cycle: {' -> '.join([*path[path.index(module) :], module])}"
        if module in done:
            return
        path.append(module)
        for name in sorted(IMPORTS[module] & MODULES.keys()):
            visit(name)
        path.pop()
        done.add(module)

    for module in MODULES:
        visit(module)


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[1:2] not in (["trainers"], ["cli"])])
def test_the_database_never_imports_jax_or_typer(module):
    heavy = {name.split(".")[0] for name in IMPORTS[module]} & set(HEAVY)
    allowed = module.startswith(("mlipdb.teachers.", "mlipdb.testing.models", "mlipdb.testing.training"))
    assert allowed or not heavy, f"{module} imports {sorted(heavy)}"


def test_only_teachers_import_torch():
    for module, names in IMPORTS.items():
        if not module.startswith("mlipdb.teachers."):
            assert "torch" not in {name.split(".")[0] for name in names}, module


@pytest.mark.parametrize("module", list(MODULES))
def test_a_file_stays_within_four_hundred_lines(module):
    assert len(MODULES[module].read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.name)
def test_a_test_file_stays_within_six_hundred_lines(path):
    assert len(path.read_text().splitlines()) <= 600


@pytest.mark.parametrize("module", [name for name in MODULES if ".migrations.versions" not in name])
def test_functions_stay_within_fifty_lines_and_eight_arguments(module):
    # Migrations are left out: they are lists of tables.
    for node in ast.walk(TREES[module]):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node, clean=False)
        first = node.body[0].end_lineno if docstring is not None else node.body[0].lineno - 1
        length = node.end_lineno - first
        assert length <= 50, f"{module}.{node.name} has {length} lines"
        arguments = [a.arg for a in node.args.posonlyargs + node.args.args if a.arg not in ("self", "cls")]
        count = len(arguments) + len(node.args.kwonlyargs)
        command = module.startswith("mlipdb.cli")  # typer turns arguments into options
        assert count <= (20 if command else 8), f"{module}.{node.name} has {count} arguments"


@pytest.mark.parametrize("module", [name for name, path in MODULES.items() if path.name == "__init__.py"])
def test_an_init_file_only_re_exports(module):
    source = MODULES[module].read_text()
    assert len(source.splitlines()) <= 60
    for node in TREES[module].body:
        assert isinstance(node, ast.Expr | ast.Import | ast.ImportFrom | ast.Assign), f"{module}: {ast.unparse(node)}"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("mlipdb.cli")])
def test_a_command_stays_within_twenty_five_lines(module):
    for node in TREES[module].body:
        if isinstance(node, ast.FunctionDef):
            start = node.body[0].end_lineno if ast.get_docstring(node) else node.body[0].lineno - 1
            assert node.end_lineno - start <= 25, f"{module}.{node.name}"


def test_showing_the_help_imports_neither_jax_nor_torch_nor_pymatgen():
    program = (
        "import sys; sys.argv = ['mlipdb', '--help']\n"
        "from mlipdb.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'jax', 'torch', 'equinox', 'pymatgen', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'heavy imports: {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def signatures(tree: ast.Module) -> list[ast.expr | None]:
    """The types of what functions that others may call take and give; those within a function are its own matter."""
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    functions = [node for body in bodies for node in body if isinstance(node, ast.FunctionDef)]
    found = []
    for function in functions:
        if not function.name.startswith("_"):
            every = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
            found += [function.returns, *(argument.annotation for argument in every)]
    return found


@pytest.mark.parametrize("module", list(MODULES))
def test_every_array_type_names_its_shape(module):
    variables = [node.annotation for node in ast.walk(TREES[module]) if isinstance(node, ast.AnnAssign)]
    for annotation in filter(None, variables + signatures(TREES[module])):
        bare = ast.unparse(annotation).removesuffix(" | None") in ("np.ndarray", "jax.Array", "Array")
        assert not bare, f"{module}:{annotation.lineno} has an array without a shape in its type"
