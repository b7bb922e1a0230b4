"""From files to sections, tiles, targets and folds. Nothing here knows a model.

The parts, and what each is about:

    readers/                      data sets on disk -> sections, one module per layout
    slides/                       images of any format: pixels, thumbnails, tissue
    spots/                        positions of spots: array, image, previews, scale
    counts/, genes/               checked raw counts on one gene axis; what genes are called
    text_files, text_records,     text as programs and people write it: bytes, rows, tables
    text_tables
    patients, splits              one name per patient; training and held-out spots
    tiles, stain, recolouring     tiles cut from a slide; stains of a slide; tiles recoloured
    expression, gene_panel        counts -> targets of the genes that a model predicts
    simulation/                   the built-in data set
    datasets, stain_graph,        with TensorFlow: pipelines of tiles, recolouring in a graph,
    tfds_images                   images from TensorFlow Datasets
"""
