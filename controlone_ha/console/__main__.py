"""``python -m controlone_ha.console COMMAND``: the `console` command; ``run`` is the client."""

import sys

from controlone_ha.console.command import main

if __name__ == "__main__":
    sys.exit(main())
