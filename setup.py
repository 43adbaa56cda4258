"""Packaging. All configuration lies in settings.ini; this file hands it over and puts the data files into the
wheel."""

import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

root = Path(__file__).resolve().parent
config = ConfigParser(delimiters=["="])
config.read(root / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
extras = ("dev", "tables", "fid", "data", "track")


class BuildWithTables(build_py):
    """Also copies the table notebooks, their presets and the result rows into the built package:
    genaug/assets/{tables,results}."""

    def run(self):
        super().run()
        if not getattr(self, "editable_mode", False):
            for name, pattern in (
                ("tables", "[!_.]*.ipynb"),
                ("tables", "presets/*.json"),
                ("results", "**/*.csv"),
            ):
                for source in sorted((root / "nbs" / name).glob(pattern)):
                    target = Path(
                        self.build_lib, "genaug", "assets", name, source.relative_to(root / "nbs" / name)
                    )
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, target)


def requirements(key):
    return settings.get(key, "").split()


setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(root / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    url=settings["git_url"],
    license="Apache-2.0",
    keywords=settings["keywords"],
    python_requires=f">={settings['min_python']}",
    packages=find_namespace_packages(
        include=["genaug", "genaug.*"], exclude=["genaug.assets", "genaug.assets.*"]
    ),
    package_data={"genaug": ["assets/**/*"]},
    include_package_data=False,
    install_requires=requirements("requirements"),
    extras_require={name: requirements(f"{name}_requirements") for name in extras},
    entry_points={
        "console_scripts": settings["console_scripts"].split(),
        "nbdev": ["genaug=genaug._modidx:d"],
    },
    cmdclass={"build_py": BuildWithTables},
    zip_safe=False,
)
