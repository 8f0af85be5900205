"""Makes README.md from nbs/index.ipynb: its prose, its code, and the outputs that are stored in it."""
import json, posixpath, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INDEX = ROOT / "nbs" / "index.ipynb"


def links(text):
    "Links between notebooks, made relative to the folder of the README"
    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", lambda m: f"]({posixpath.normpath(posixpath.join('nbs', m[1]))})", text)


def directives(src): return re.findall(r"^#\|\s*(.+)$", src, re.M)


def code(cell):
    "A code cell and its stored text or Markdown output"
    src = "".join(cell["source"])
    flags = directives(src)
    if any(re.match(r"hide\b|include:\s*false|default_exp|export", f) for f in flags): return
    body = re.sub(r"^#\|.*\n?", "", src, flags=re.M).strip()
    if body and "echo: false" not in flags: yield f"```{'sh' if body.startswith('!') else 'python'}\n{re.sub(r'^!', '', body, flags=re.M)}\n```"
    for out in cell.get("outputs", []):
        data = {k: "".join(v) for k, v in out.get("data", {"text/plain": out.get("text", "")}).items() if k.startswith("text/")}
        if "text/markdown" in data: yield data["text/markdown"].strip()
        elif data.get("text/plain", "").strip(): yield "\n".join("    " + l for l in data["text/plain"].rstrip().splitlines())


def readme():
    parts = ["<!-- made from nbs/index.ipynb: edit that page, then `make readme` -->"]
    for cell in json.loads(INDEX.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown": parts.append(links("".join(cell["source"]).strip()))
        elif cell["cell_type"] == "code": parts += code(cell)
    return "\n\n".join(parts) + "\n"


def script():
    "The first code block of the README that uses the library"
    return next(b for b in re.findall(r"```python\n(.*?)```", readme(), re.S) if "xlnb" in b)


if __name__ == "__main__":
    out = ROOT / "README.md"
    if "--script" in sys.argv: print(script())
    elif "--check" not in sys.argv: out.write_text(readme(), encoding="utf-8")
    elif not out.exists() or out.read_text(encoding="utf-8") != readme():
        sys.exit("README.md is not what nbs/index.ipynb gives: run `make readme`")
