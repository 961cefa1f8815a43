"""Networks a user brings: what they are, their seats, branches and tokens; the starter project made of them."""
