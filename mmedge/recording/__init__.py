"""Recordings as a format: event log and media files, their writer and their reader."""
