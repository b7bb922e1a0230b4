"""What every reader's counts pass: genes alone, whole numbers, told apart by id, one gene axis."""
