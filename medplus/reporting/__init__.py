"""What a report looks like: tables and figures in files, tables in the terminal, and the page."""
