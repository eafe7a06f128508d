"""The schema of every UCI option of the product, and typed settings made from UCI."""
