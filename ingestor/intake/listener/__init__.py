"""The webhook listener: providers' POSTs, durable before they are answered.

ingestor.http (connections) > gate (who may) > reception > writer
                                                          > replay > spool
"""
