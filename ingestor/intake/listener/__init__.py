"""The webhook listener: providers' POSTs, durable before they are answered.

ingestor.http (connections) > gate (who may) > reception > writer
                                                          > replay > spool
"""

from ingestor.intake.listener.listener import Listener
from ingestor.intake.listener.reception import Limits

__all__ = ["Limits", "Listener"]
