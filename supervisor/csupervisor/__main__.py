"""`python -m csupervisor`."""

import sys

from csupervisor.main import main

sys.exit(main())
