"""What a user gets: the wheel, the pins of the lock, what an import pulls in."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import ifv_jax

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PYPROJECT["project"]["version"]
LOCK = (ROOT / "requirements.lock").read_text()


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (built,) = out.iterdir()
    return built


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = f"ifv_jax-{VERSION}.dist-info"
    assert {name.split("/")[0] for name in names} == {"ifv_jax", info}
    assert f"{info}/licenses/LICENSE" in names
    source = {str(path.relative_to(ROOT)) for path in (ROOT / "ifv_jax").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == source
    assert "ifv_jax/py.typed" in names


IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import ifv_jax
modules = pkgutil.walk_packages(ifv_jax.__path__, "ifv_jax.")
for module in modules:
    importlib.import_module(module.name)
print(ifv_jax.__file__)
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def test_the_installed_wheel_imports_without_what_only_the_clone_needs(wheel, tmp_path):
    # A wheel of pure Python is installed by unpacking it.
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    printed = run(sys.executable, "-c", IMPORT_EVERYTHING, tmp_path, cwd=tmp_path)
    file, imported = printed.splitlines()[-2:]
    assert Path(file).is_relative_to(tmp_path)
    assert "jax" in imported.split()
    unwanted = {"flax", "matplotlib", "PIL", "models", "benchmarks", "beartype"}
    assert not unwanted & set(imported.split())


def locked() -> list[Requirement]:
    lines = LOCK.replace("\\\n", " ").splitlines()
    pins = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert all("--hash=sha256:" in pin for pin in pins)
    return [Requirement(pin.split("--hash")[0]) for pin in pins]


def test_the_lock_names_no_machine_and_no_index():
    assert not re.search(r"://|\s(?:-i|-f|--\S*index\S*|--find-links)\s|file:| @ |\s[/~]\w", LOCK)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_pins_every_dependency_once_on_each_python(python):
    optional = PYPROJECT["project"]["optional-dependencies"]
    wanted = [
        *PYPROJECT["project"]["dependencies"],
        *(name for extra in ("models", "benchmarks") for name in optional[extra]),
        *PYPROJECT["dependency-groups"]["dev"],
    ]
    environment = {"python_version": python, "python_full_version": f"{python}.5"}
    pins: dict[str, list[str]] = {}
    for pin in locked():
        if pin.marker is None or pin.marker.evaluate(environment):
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            pins.setdefault(pin.name, []).append(specifier.version)
    assert all(len(versions) == 1 for versions in pins.values()), pins
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[requirement.name][0])


def test_pre_commit_runs_the_ruff_of_the_lock():
    (pin,) = [next(iter(one.specifier)) for one in locked() if one.name == "ruff"]
    assert f"rev: v{pin.version} " in (ROOT / ".pre-commit-config.yaml").read_text()


def test_version_stands_the_same_in_every_file():
    assert ifv_jax.__version__ == VERSION
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{VERSION}]" in (ROOT / "CHANGELOG.md").read_text()


def test_what_is_slow_to_import_waits_until_it_is_needed():
    slow = ("jaxopt", "optax", "orbax", "orbax.checkpoint", "scipy.special", "flax", "matplotlib")
    code = f"import sys, ifv_jax; print([name for name in {slow} if name in sys.modules])"
    assert run(sys.executable, "-c", code, cwd=ROOT).strip() == "[]"
