"""``python -m embedl_deploy``: the command line."""

import sys

from embedl_deploy.cli import main

sys.exit(main())
