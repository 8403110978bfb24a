"""The webhook listener: providers' POSTs, durable before they are answered.

ingestor.http (connections) > gate (who may) > reception > writer
                                                          > keeper > spool
"""

from ingestor.intake.listener.limits import Limits
from ingestor.intake.listener.listener import Listener

__all__ = ["Limits", "Listener"]
