"""Load: rows with vectors by binary COPY."""
