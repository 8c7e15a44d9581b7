"""The source's tables and what stands beside them: recipes, networks, attacks, pages."""
