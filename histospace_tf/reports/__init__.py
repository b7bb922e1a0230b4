"""What people look at: maps, figures, the report's page, the model card."""
