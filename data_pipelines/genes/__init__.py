"""What genes are called: symbols, Ensembl ids, former names, species, lists of genes."""
