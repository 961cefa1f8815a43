"""The native sample ring under the name the synchroniser uses."""

from mmedge._native import core

AudioRing = core.SampleRing

__all__ = ["AudioRing"]
