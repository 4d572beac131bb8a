"""For all tests."""

from __future__ import annotations

import os
import signal

# CI means frozen locks; what is tested about that sets it itself.
os.environ.pop("CI", None)

# Whoever starts the tests in the background may have SIGINT ignored, which programs inherit: the
# tests that send one would wait in vain.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
