"""Raw frame or PCM -> the tensor a network takes, by one spec."""

from mmedge.preprocess.audio import AudioPreprocessor
from mmedge.preprocess.image import ImagePreprocessor

__all__ = ["AudioPreprocessor", "ImagePreprocessor"]
