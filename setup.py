"""What pyproject.toml can't say: dodo.py, which is the project's own, goes into the wheel too, so
that `lading init` gives it to others.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DODO = "lading/new/dodo.py.txt"


class WithDodo(build_py):
    def run(self) -> None:
        super().run()
        # An editable installation reads the one that lies here.
        if not self.editable_mode:
            target = Path(self.build_lib) / DODO
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(Path("dodo.py").read_bytes())


setup(cmdclass={"build_py": WithDodo})
