"""Preprocessing as torch modules, for training and calibration."""
