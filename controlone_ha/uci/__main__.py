"""``python -m controlone_ha.uci``: the `uci` command."""

import sys

from controlone_ha.uci.command import main

sys.exit(main())
