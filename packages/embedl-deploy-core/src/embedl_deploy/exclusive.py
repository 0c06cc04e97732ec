"""A lock for state that only one thread of a process may change at a time.

``torch.fx`` replaces ``nn.Module.__call__`` and ``nn.Module.__getattr__`` while it traces, ``torch.export`` and
``torch.onnx`` keep state of their own in their modules, and redirecting ``sys.stderr``, setting the level of a
logger or ignoring a warning is seen by everybody. Whoever does such a thing holds this lock; the same thread may take
it again.
"""

import threading

#: Held while global state of Python or torch is replaced, until it is back.
global_state = threading.RLock()
