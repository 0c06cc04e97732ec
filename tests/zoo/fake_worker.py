"""Stands for a worker of the zoo, without torch: what it does is in the model's name."""

import json
import os
import signal
import sys
import time

_family, name, file, _gigabytes, _stages, _device, _backend, _policy = sys.argv[1:]


def tell(stage, **outcome):
    with open(file, "a") as lines:
        lines.write(json.dumps([stage, outcome]) + "\n")


tell("build")
tell("build", ok=True, seconds=0.1, parameters=10)
tell("transform")
if name == "crashes":
    os.kill(os.getpid(), signal.SIGSEGV)
if name == "hangs":
    time.sleep(60)
if name == "exits":
    sys.exit("out of luck")
tell("transform", ok=True, seconds=0.1, capture="symbolic", rewrites=1)
tell("agree", ok=False, seconds=0.1, reason=f"differs by {len(name)}")
