"""Parts of a score: chance, intervals, tables, and the ridge."""
