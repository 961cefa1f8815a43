"""Raw frame, PCM or text -> the tensor a network takes, by one spec."""

from mmedge.preprocess.audio import AudioPreprocessor
from mmedge.preprocess.image import ImagePreprocessor
from mmedge.preprocess.text import Tokenizer

__all__ = ["AudioPreprocessor", "ImagePreprocessor", "Tokenizer"]
