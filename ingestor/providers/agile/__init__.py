"""Agile Telecom: inbound SMS by mail and by POST."""
