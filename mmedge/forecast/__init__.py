"""What a run is expected to take, before it is made: from rates, windows, and times that are known of networks."""

from mmedge.forecast.boards import Board, Known, board_named, board_of, known_boards
from mmedge.forecast.expect import Forecast, Sources, expect
from mmedge.forecast.span import Span

__all__ = ["Board", "Forecast", "Known", "Sources", "Span", "board_named", "board_of", "expect", "known_boards"]
