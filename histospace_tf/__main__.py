"""`python -m histospace_tf` is the command `histospace-tf`."""

from histospace_tf.cli import main

main(prog_name="histospace-tf")
