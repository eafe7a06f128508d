"""Local services of a node: started, stopped, watched and asked."""
