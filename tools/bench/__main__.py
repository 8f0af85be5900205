import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)   # the folder of this package, in the place of the package

from bench.command import main  # noqa: E402

if __name__ == "__main__": sys.exit(main())
