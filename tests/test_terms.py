"Standard terms: names of the library that its pages and papers do not use are gone"
import ast
from pathlib import Path

import pytest

MODULES = sorted(p for p in (Path(__file__).parent.parent / "xlnb").rglob("*.py") if "_modidx" not in p.name)
VAGUE = dict.fromkeys(("said", "told", "mine", "stands"), "say what it holds")
OLD = VAGUE | {"links": "alignments", "places": "positions", "query_places": "query_positions", "few_shot_budget": "Budget(train_examples=...)", "FEW_SHOT": "Budget(train_examples=...)"}
LIBRARY = [p for p in MODULES if p.parent.name != "lab"]  # its sentences have places


def names(tree):
    "(name, line) of variables, parameters, arguments, functions and classes"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name): yield node.id, node.lineno
        elif isinstance(node, ast.arg): yield node.arg, node.lineno
        elif isinstance(node, ast.keyword) and node.arg: yield node.arg, node.value.lineno
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)): yield node.name, node.lineno


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(p.parents[2])))
def test_names_are_standard_terms(path):
    found = names(ast.parse(path.read_text(encoding="utf-8")))
    assert [f"{name} in line {line}: {OLD.get(name, 'a standard term')}" for name, line in found if name in OLD or name.endswith(("_links", "_places"))] == []
