"""Builds the wheel from `settings.ini`, the one place where name, version and requirements are written."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
cfg = ConfigParser(delimiters=["="])
cfg.read(here / "settings.ini", encoding="utf-8")
cfg = cfg["DEFAULT"]

requirements = cfg["requirements"].split()
docs = cfg["docs_requirements"].split()
dev = cfg["dev_requirements"].split()

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8") if (here / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="Apache-2.0",
    license_files=["LICENSE"],
    url=cfg["git_url"] % cfg if "%(" in cfg["git_url"] else cfg["git_url"],
    keywords=cfg["keywords"],
    packages=find_packages(include=["xlnb", "xlnb.*"]),
    package_data={"xlnb": ["assets/**/*", "assets/*", "py.typed"]},
    include_package_data=False,
    python_requires=f">={cfg['min_python']}",
    install_requires=requirements,
    extras_require={"dev": dev, "docs": docs, "ray": ["ray>=2.40"], "ner": ["spacy>=3.7"], "words": ["icu4py>=1.2; python_version >= '3.11'"], "real": cfg["real_requirements"].strip().splitlines()},
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Natural Language :: English",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    zip_safe=False,
)
