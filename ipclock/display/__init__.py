"""What people and programs read of a pool: lines, tables, pages, metrics."""
