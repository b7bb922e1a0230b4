"""Parts of `check`: genes, images, sections, and what is said of them."""
