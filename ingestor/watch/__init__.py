"""Watched: what is found about sources, spool and disk, and which of it is somebody's business."""
