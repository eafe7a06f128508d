"""`python -m controlone_ha.lab`."""

import signal
import sys

from controlone_ha.lab.command import main

signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `… logs m1 ha | head` ends in silence
sys.exit(main())
