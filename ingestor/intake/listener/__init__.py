"""The webhook listener: providers' POSTs, durable before they are answered.

server (thread) > service (event loop) > connection (HTTP) > gate (who may) > reception > writer
                                                                                       > keeper > spool
"""

from ingestor.intake.listener.limits import Limits
from ingestor.intake.listener.server import Listener

__all__ = ["Limits", "Listener"]
