import sys

from xlnb.cli import main

sys.exit(main())
